"""The option that says what wrote the rollout files, for the commands that read them."""

from typing import Annotated

import typer

from agentprm.errors import AgentPRMError
from training.rollouts.formats import FORMATS, check_format


def _known(name: str) -> str:
    try:
        check_format(name)
    except AgentPRMError as error:
        raise typer.BadParameter(str(error)) from None
    return name


FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        callback=_known,
        help=f"What wrote the files: {', '.join(FORMATS)}. auto looks at each record.",
    ),
]
