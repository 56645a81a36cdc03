"""``python -m service``: loads the models and serves them until a signal to stop."""

import errno
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Final

import typer
import uvicorn

from agentprm.errors import AgentPRMError
from service.logs import set_up_logging
from service.options import (
    HELP,
    PROGRAM,
    HostOption,
    ModelOption,
    PortOption,
    VersionOption,
    explain_unknown,
)
from service.settings import Settings, SettingsError, ignored_variables, load_settings
from service.tracing import open_tracing

logger = logging.getLogger("service")

KEEP_ALIVE_SECONDS: Final = 75  # above the 60 that load balancers usually keep an idle connection
DRAIN_SECONDS: Final = 30  # for requests in flight, after a signal to stop
BACKLOG: Final = 2048  # connections that wait to be accepted


class CannotListen(AgentPRMError):
    """The address is taken or does not belong to this machine, or the certificate cannot be used."""


class CannotStart(AgentPRMError):
    """The service failed before it was ready."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came before the service was ready. No library takes a KeyboardInterrupt for an error of its own."""


app: Final = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the service.

    Args:
        arguments: those behind the program's name; None: those of this process.

    Returns:
        0 after a signal to stop, 1 if it cannot start, 2 for arguments that cannot be used, and 130, as shells expect,
        for Ctrl-C before it was ready.
    """
    try:
        app(arguments, prog_name=PROGRAM)
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
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload during start or drain must not end the process
    try:
        return _load_and_serve(options)
    except AgentPRMError as error:
        return _end(str(error), 1)
    except OSError as error:  # a file or a directory that may not be read, for example
        place = f"{error.filename}: " if error.filename else ""
        return _end(f"{place}{error.strerror or error}", 1)
    except Terminated:
        return _end("stopped before it was ready", 0)
    except KeyboardInterrupt:
        return _end("interrupted before it was ready", 130)


def _load_and_serve(options: Mapping[str, str]) -> int:
    settings = load_settings(options)
    set_up_logging(settings.log_level, settings.log_format)
    for sentence in ignored_variables():
        logger.warning("%s", sentence)
    # The port comes first: if it is taken, that is known before minutes of loading.
    check_certificate(settings)
    if settings.guard_metrics and settings.api_keys_file is None:
        raise SettingsError("AGENTPRM_GUARD_METRICS is of no use without AGENTPRM_API_KEYS_FILE")
    with bind_socket(settings.host, settings.port) as listener:
        return serve(settings, listener)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _end(sentence: str, code: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would end the clean-up with a traceback
    print(f"agentprm: {sentence}", file=sys.stderr)
    return code


def serve(settings: Settings, listener: socket.socket) -> int:
    """Loads the models, then answers requests until a signal to stop. Returns the exit code.

    Raises:
        CannotListen: another process listens on the port since it was bound.
        CannotStart: the service failed before it was ready.
    """
    # Imported here, because torch takes seconds: --help does not need it, and Ctrl-C meanwhile ends in a sentence.
    from service.app import check_files, create_app  # noqa: PLC0415
    from service.models.load import load_models  # noqa: PLC0415

    tracing = open_tracing(settings.otel)  # before the models too: a package may be missing
    check_files(settings)
    models = load_models(settings)
    config = uvicorn.Config(
        create_app(models, settings, tracing=tracing),
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        workers=1,  # uvicorn would read WEB_CONCURRENCY, and fail if that is no number
        ssl_certfile=settings.tls_certfile,
        ssl_keyfile=settings.tls_keyfile,
    )
    names = ", ".join(model.manifest.reference for model in models)
    scheme = "https" if settings.tls_certfile else "http"
    address = address_in_url(settings.host, listener.getsockname()[1])
    logger.info("serving %s on %s://%s", names, scheme, address)
    gc.collect()
    gc.freeze()  # keeps the loaded models out of every later garbage collection
    start_listening(listener)
    server = uvicorn.Server(config)
    # uvicorn drains on SIGTERM and then raises the signal again, for the handler before its own. Exit code 0 then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    except SystemExit as ended:
        if ended.code:  # uvicorn's way to report a failed start
            raise CannotStart("the service could not start; the log above says why") from ended
        raise
    return 0


def check_certificate(settings: Settings) -> None:
    """Raises CannotListen if uvicorn cannot use the certificate; uvicorn itself would say so only after loading."""
    if settings.tls_certfile is None:
        if settings.tls_keyfile is not None:
            raise CannotListen("AGENTPRM_TLS_KEYFILE is of no use without AGENTPRM_TLS_CERTFILE")
        return
    try:
        # The empty password keeps OpenSSL from asking on the terminal for that of an encrypted key.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certfile, settings.tls_keyfile, password=""
        )
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise CannotListen(f"the certificate in {settings.tls_certfile} cannot be used: {error}") from error


def bind_socket(host: str, port: int) -> socket.socket:
    """Returns a bound socket that does not listen yet: while models load, clients are refused instead of kept waiting.

    Raises:
        CannotListen: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only on sockets created with IPPROTO_TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot express
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def start_listening(listener: socket.socket) -> None:
    """Listens. Raises CannotListen if another process listens first: SO_REUSEADDR allows several to bind the port."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def address_in_url(host: str, port: int) -> str:
    """Returns host and port as a URL has them: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> CannotListen:
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else "that is no name of a host"
    advice = {
        errno.EADDRINUSE: "; --port or AGENTPRM_PORT chooses another port",
        errno.EACCES: "; ports below 1024 belong to the administrator, --port or AGENTPRM_PORT chooses another",
        errno.EADDRNOTAVAIL: "; 127.0.0.1 is for this machine alone, 0.0.0.0 is for all its addresses",
    }
    number = error.errno if isinstance(error, OSError) else None
    return CannotListen(f"cannot listen on {address_in_url(host, port)}: {reason}{advice.get(number or 0, '')}")


if __name__ == "__main__":
    sys.exit(main())
