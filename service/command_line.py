"""The command line of the service: reads settings, binds the port, checks what can be told early, and serves."""

import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

import typer

from agentprm.errors import AgentPRMError
from service.listening import bind_socket, check_certificate
from service.logs import set_up_logging
from service.options import HELP, PROGRAM, HostOption, ModelOption, PortOption, VersionOption, explain_unknown
from service.preflight import check_settings
from service.settings import ignored_variables, load_settings

logger = logging.getLogger("service")


app: Final = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(arguments: Sequence[str] = ()) -> int:
    """Runs the service with the options that follow the program's name.

    Returns:
        0 after a signal to stop, 1 if it cannot start, 2 for arguments that cannot be used.
    """
    try:
        app(list(arguments), prog_name=PROGRAM)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@app.command(
    help=HELP,
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": ["--help", "-h"],
    },
)
def command(
    context: typer.Context,
    host: HostOption = None,
    port: PortOption = None,
    model: ModelOption = None,
    _version: VersionOption = False,
) -> None:
    """Serves with the settings of the environment and the options, which win."""
    if context.args:
        context.fail(explain_unknown(context.args[0]))
    given = {"host": host, "port": port, "models": ",".join(model) if model else None}
    raise typer.Exit(run({field: value for field, value in given.items() if value is not None}))


def run(options: Mapping[str, str]) -> int:
    """Serves with these settings and those of the environment. Returns the exit code, as ``main`` does."""
    try:
        return _load_and_serve(options)
    except AgentPRMError as error:
        return _end(str(error))
    except OSError as error:  # a file or a directory that may not be read, for example
        place = f"{error.filename}: " if error.filename else ""
        return _end(f"{place}{error.strerror or error}")


def _load_and_serve(options: Mapping[str, str]) -> int:
    settings = load_settings(options)
    set_up_logging(settings.log_level, settings.log_format)
    for sentence in ignored_variables():
        logger.warning("%s", sentence)
    # The port comes first: if it is taken, that is known before minutes of loading.
    check_certificate(settings)
    with bind_socket(settings.host, settings.port) as listener:
        check_settings(settings)
        # Not imported above: it imports torch, which takes seconds, and --help needs none.
        code: int = import_module("service.serving").serve(settings, listener)
        return code


def _end(sentence: str) -> int:
    print(f"agentprm: {sentence}", file=sys.stderr)
    return 1
