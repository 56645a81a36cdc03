"""Options of ``python -m service``: the settings that people like to type. Their values go the way of all settings."""

import difflib
from typing import Annotated, Final

import typer

from service.settings import OPTIONS, Settings, variable
from service.versions import version_of

PROGRAM: Final = "python -m service"
HELP: Final = """Serve the scores of AgentPRM models.

Every setting is an environment variable; docs/settings.md lists them all. An option wins over its variable.
"""


def describe(field: str) -> str:
    """Returns the help of an option: what the setting is for, its variable and its default."""
    described = Settings.model_fields[field]
    default = ",".join(described.default) if isinstance(described.default, tuple) else described.default
    return f"{described.description} [{variable(field)}, default: {default}]"


def explain_unknown(argument: str) -> str:
    """Returns why an argument cannot be used, and what can. Quotes no value: it may be a password."""
    if not argument.startswith("-"):
        return f"{PROGRAM} takes options only; the settings are environment variables"
    name = argument.partition("=")[0]
    if (field := name.strip("-").replace("-", "_")) in Settings.model_fields:
        return f"{name} is no option; {variable(field)} is the variable of that setting"
    nearest = difflib.get_close_matches(name, [*OPTIONS.values(), "--version", "--help"], n=1)
    return f"{name} is no option" + (f"; the nearest is {nearest[0]}" if nearest else "")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"agentprm {version_of('agentprm')}")
        raise typer.Exit


HostOption = Annotated[str | None, typer.Option(OPTIONS["host"], metavar="ADDRESS", help=describe("host"))]
PortOption = Annotated[str | None, typer.Option(OPTIONS["port"], metavar="NUMBER", help=describe("port"))]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(OPTIONS["models"], metavar="NAME", help=f"May be repeated. {describe('models')}"),
]
VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
]
