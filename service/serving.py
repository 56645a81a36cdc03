"""Loads the models and serves them; imports torch, which takes seconds."""

import gc
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

from agentprm.errors import AgentPRMError
from service.app import create_app, new_metrics
from service.http.server.connections import ConnectionLimits, connections_within, raise_descriptor_limit
from service.http.server.server import Server, server_config
from service.listening import address_in_url, start_listening
from service.models.load import load_models
from service.settings import Settings, names_proxies
from service.tracing import open_tracing

logger = logging.getLogger("service")

DRAIN_SECONDS: Final = 30  # for requests in flight, after a signal to stop


class CannotStart(AgentPRMError):
    """The service failed before it was ready."""


def serve(settings: Settings, listener: socket.socket) -> int:
    """Loads the models, then answers requests until a signal to stop. Returns the exit code.

    Raises:
        CannotListen: another process listens on the port since it was bound.
        CannotStart: the service failed before it was ready.
    """
    tracing = open_tracing(settings.otel)  # before the models too: a package may be missing
    models, failed = load_models(settings)
    metrics = new_metrics()
    config = server_config(
        create_app(models, settings, failed=failed, tracing=tracing, metrics=metrics),
        drain_seconds=DRAIN_SECONDS,
        behind_proxies=names_proxies(),
        certificate=settings.tls_certfile,
        key=settings.tls_keyfile,
    )
    limits = ConnectionLimits(connections=connections_within(raise_descriptor_limit()))
    server = Server(config, limits, metrics.connections.on_ended)
    metrics.connections.watch_open(server.open_connections)
    metrics.connections.set_limit(limits.connections)
    names = ", ".join(model.manifest.reference for model in models)
    scheme = "https" if settings.tls_certfile else "http"
    address = address_in_url(settings.host, listener.getsockname()[1])
    logger.info("serving %s on %s://%s", names, scheme, address)
    gc.collect()
    gc.freeze()  # keeps the loaded models out of every later garbage collection
    start_listening(listener)
    # uvicorn drains on a signal and then raises it again, for the handler before its own. The exit code is 0 then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    except SystemExit as ended:
        if ended.code:  # uvicorn's way to report a failed start
            raise CannotStart("the service could not start; the log above says why") from ended
        raise
    return 0
