"""``python -m training``: from rollouts to a served checkpoint, a sub-command for each part of the way."""

import typer

from training.commands.rollouts import rollouts

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Train, measure, calibrate and publish process reward models from rollouts of an agent."""


app.command()(rollouts)


if __name__ == "__main__":
    app(prog_name="python -m training")
