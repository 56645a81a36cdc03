"""``python -m service``: loads the models and serves them until a signal to stop."""

import gc
import logging
import signal
import socket
import ssl
import sys
from contextlib import suppress
from typing import Final

from agentprm.errors import AgentPRMError
from service.app import create_app, new_metrics
from service.http.limits import BACKLOG
from service.http.server.connections import ConnectionLimits, connections_within, raise_descriptor_limit
from service.http.server.server import Server, server_config
from service.logs import set_up_logging
from service.models.load import load_models
from service.settings import Settings, SettingsError, load_settings
from service.tracing import open_tracing

logger = logging.getLogger("service")

DRAIN_SECONDS: Final = 30  # for requests in flight, after a signal to stop


class CannotListen(AgentPRMError):
    """The address is taken or does not belong to this machine, or the certificate cannot be used."""


class CannotStart(AgentPRMError):
    """The service failed before it was ready."""


def main() -> int:
    """Runs the service. Returns 0 after a signal to stop, 1 if it cannot start."""
    # uvicorn drains on SIGTERM and then raises the signal again, for the handler before its own. Exit code 0 then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload during start or drain must not end the process
    try:
        settings = load_settings()
        set_up_logging(settings.log_level, settings.log_format)
        # The port comes first: if it is taken, that is known before minutes of loading.
        check_certificate(settings)
        if settings.guard_metrics and settings.api_keys_file is None:
            raise SettingsError("AGENTPRM_GUARD_METRICS is of no use without AGENTPRM_API_KEYS_FILE")
        with bind_socket(settings.host, settings.port) as listener:
            return serve(settings, listener)
    except AgentPRMError as error:
        print(f"agentprm: {error}", file=sys.stderr)
        return 1


def serve(settings: Settings, listener: socket.socket) -> int:
    """Loads the models, then answers requests until a signal to stop. Returns the exit code.

    Raises:
        CannotListen: another process listens on the port since it was bound.
        CannotStart: the service failed before it was ready.
    """
    tracing = open_tracing(settings.otel)  # before the models too: a package may be missing
    models = load_models(settings)
    metrics = new_metrics()
    config = server_config(
        create_app(models, settings, tracing=tracing, metrics=metrics),
        drain_seconds=DRAIN_SECONDS,
        certificate=settings.tls_certfile,
        key=settings.tls_keyfile,
    )
    limits = ConnectionLimits(connections=connections_within(raise_descriptor_limit()))
    server = Server(config, limits, metrics.connections.on_ended)
    metrics.connections.watch_open(server.open_connections)
    metrics.connections.set_limit(limits.connections)
    names = ", ".join(model.manifest.reference for model in models)
    scheme = "https" if settings.tls_certfile else "http"
    logger.info("serving %s on %s://%s:%d", names, scheme, settings.host, listener.getsockname()[1])
    gc.collect()
    gc.freeze()  # keeps the loaded models out of every later garbage collection
    start_listening(listener)
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
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def start_listening(listener: socket.socket) -> None:
    """Listens. Raises CannotListen if another process listens first: SO_REUSEADDR allows several to bind the port."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
