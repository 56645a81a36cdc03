"""uvicorn's server over listeners that bound connections."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from service.http.limits import KEEP_ALIVE_SECONDS
from service.http.server.connections import ConnectionLimits, Connections
from service.http.server.listener import Listener
from service.http.server.protocol import HTTPProtocol


class Server(uvicorn.Server):
    """Serves until a signal to stop.

    Args:
        config: ``server_config`` makes it.
        limits: what connections may cost.
        on_ended: called with the reason for each connection that is refused or ended for a limit.
    """

    def __init__(self, config: uvicorn.Config, limits: ConnectionLimits, on_ended: Callable[[str], None]) -> None:
        super().__init__(config)
        self._limits = limits
        self._on_ended = on_ended
        self._connections: Connections | None = None
        self._listeners: list[Listener] = []

    def open_connections(self) -> int:
        """Returns the number of connections, including those in a TLS handshake."""
        return 0 if self._connections is None else self._connections.count()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then accepts connections on ``sockets``. uvicorn itself listens on none."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        self._connections = Connections(loop, self._limits, self.server_state.connections, self._on_ended)
        protocol = partial(
            HTTPProtocol, self.config, self.server_state, self.lifespan.state, connections=self._connections
        )
        for listening in sockets or []:
            listener = Listener(listening, protocol, self._connections, self.config.ssl)
            self._listeners.append(listener)
            listener.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  (uvicorn's name)
        """Refuses what is not accepted yet, answers what is, then stops the application."""
        if self._connections is not None:
            self._connections.stopping = True
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        await super().shutdown(sockets=[])


def server_config(
    app: Callable[..., Any],
    *,
    drain_seconds: int,
    behind_proxies: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
) -> uvicorn.Config:
    """Returns the configuration of uvicorn, with parser and event loop by name: what else is installed changes nothing.

    Args:
        app: the ASGI application.
        drain_seconds: seconds for requests in flight after a signal to stop.
        behind_proxies: whether a caller's address is the one in ``X-Forwarded-For``, from the proxies that uvicorn's
            variable FORWARDED_ALLOW_IPS names. By default uvicorn would let callers on this machine choose theirs.
        certificate: file of the TLS certificate; None for plain HTTP.
        key: file of its key.
    """
    return uvicorn.Config(
        app,
        http=HTTPProtocol,
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=behind_proxies,
        workers=1,  # uvicorn would read WEB_CONCURRENCY, and fail if that is no number
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
