"""``python -m training``: from rollouts to a served checkpoint, a sub-command for each part of the way."""

import sys
from collections.abc import Sequence

import typer

from agentprm.errors import AgentPRMError
from training.commands.calibrate import calibrate
from training.commands.check import check
from training.commands.evaluate import evaluate
from training.commands.report import report
from training.commands.rollouts import rollouts
from training.commands.several import SeveralCommand
from training.commands.train import train

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Train, measure, calibrate and publish process reward models from rollouts of an agent."""


app.command()(check)
app.command(cls=SeveralCommand)(train)
app.command(cls=SeveralCommand)(evaluate)
app.command(cls=SeveralCommand)(calibrate)
app.command()(report)
app.command()(rollouts)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for a failure and 2 for arguments that cannot be used."""
    try:
        app(arguments, prog_name="python -m training")
    except SystemExit as ended:
        return int(ended.code or 0)
    except AgentPRMError as error:
        print(f"training: {error}", file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"training: {place}{error.strerror or error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run())
