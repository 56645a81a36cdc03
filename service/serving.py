"""Loads the models and serves them with uvicorn; imports torch, which takes seconds."""

import gc
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

import uvicorn

from agentprm.errors import AgentPRMError
from service.app import create_app
from service.listening import address_in_url, start_listening
from service.models.load import load_models
from service.settings import Settings, names_proxies
from service.tracing import open_tracing

logger = logging.getLogger("service")

KEEP_ALIVE_SECONDS: Final = 75  # above the 60 that load balancers usually keep an idle connection
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
    models = load_models(settings)
    config = uvicorn.Config(
        create_app(models, settings, tracing=tracing),
        log_config=None,
        access_log=False,
        # Callers share the service by address. By default uvicorn would let those on this machine choose theirs.
        proxy_headers=names_proxies(),
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
