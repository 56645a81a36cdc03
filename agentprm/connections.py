"""Connections that are never shared by processes or event loops, and places for calls.

A child process gets a copy of every socket of its parent. If both used one, each could read the other's replies.
"""

import asyncio
import math
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NoReturn
from weakref import WeakSet

import httpx

from agentprm.address import Address
from agentprm.connection_pool import Connection, Pool
from agentprm.errors import ClientClosed, DeadlineExceeded, RequestError
from agentprm.transports import AsyncTransport, Transport, async_opener, opener

MAX_CALLS: Final = 100
"""Calls of one client at a time; the others wait. The service computes concurrent requests in batches."""


class Connections:
    """The connections of a blocking client; threads share them."""

    def __init__(self, service: Address, transport: Transport) -> None:
        self._open_connection = opener(service, transport)
        self._transport = transport
        self._refusal = ""
        self._start()
        _of_this_process.add(self)

    @contextmanager
    def place(self, seconds: float) -> Iterator[None]:
        """Waits for one of ``MAX_CALLS`` places and holds it.

        Raises:
            DeadlineExceeded: none became free in these seconds.
        """
        self._refuse()
        places = self._places
        if not places.acquire(timeout=None if seconds == math.inf else min(max(seconds, 0), threading.TIMEOUT_MAX)):
            raise _no_place()
        try:
            yield
        finally:
            places.release()

    @contextmanager
    def connection(self) -> Iterator[Connection[httpx.Client]]:
        """Lends a connection for one request. One that failed is closed: its next reply could be an earlier one's."""
        self._refuse()
        pool = self._pool
        connection = pool.take()
        try:
            yield connection
        except RequestError:
            _close_all(pool.give_back(connection))
            raise
        except BaseException:
            pool.discard(connection).close()
            raise
        _close_all(pool.give_back(connection))

    def close(self) -> None:
        self._refusal = self._refusal or _CLOSED
        _close_all(self._pool.close())
        if isinstance(self._transport, httpx.BaseTransport):
            self._transport.close()

    def start_in_child(self) -> object:
        """Starts anew after a fork. Returns what may not be collected in this process."""
        inherited = self._pool
        _close_all(inherited.leave_to_parent())
        if isinstance(self._transport, httpx.HTTPTransport):
            self._refusal = self._refusal or _OF_PARENT
        self._start()
        return inherited

    def __reduce__(self) -> NoReturn:
        raise TypeError(_NOT_PICKLED)

    def _refuse(self) -> None:
        if self._refusal:
            raise ClientClosed(self._refusal)

    def _start(self) -> None:
        self._pool = Pool(self._open_connection)
        self._places = threading.Semaphore(MAX_CALLS)


class AsyncConnections:
    """The connections of an asynchronous client, apart for each event loop."""

    def __init__(self, service: Address, transport: AsyncTransport) -> None:
        self._open_connection = async_opener(service, transport)
        self._transport = transport
        self._refusal = ""
        self._of_loops: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        self._first_loop: asyncio.AbstractEventLoop | None = None
        _of_this_process.add(self)

    @asynccontextmanager
    async def place(self, seconds: float) -> AsyncIterator[None]:
        self._refuse()
        places = (await self._here()).places
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await places.acquire()
        except TimeoutError:
            raise _no_place() from None
        try:
            yield
        finally:
            places.release()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection[httpx.AsyncClient]]:
        self._refuse()
        pool = (await self._here()).pool
        connection = pool.take()
        try:
            yield connection
        except RequestError:
            await _aclose_all(pool.give_back(connection))
            raise
        except BaseException:
            await pool.discard(connection).aclose()
            raise
        await _aclose_all(pool.give_back(connection))

    async def close(self) -> None:
        self._refusal = self._refusal or _CLOSED
        here = self._of_loops.pop(asyncio.get_running_loop(), None)
        self._of_loops.clear()
        if here is not None:
            await here.until_shutdown.aclose()
        if isinstance(self._transport, httpx.AsyncBaseTransport):
            await self._transport.aclose()

    def start_in_child(self) -> object:
        inherited, self._of_loops = self._of_loops, {}
        for of_loop in inherited.values():
            of_loop.pool.leave_to_parent()
        if isinstance(self._transport, httpx.AsyncHTTPTransport):
            self._refusal = self._refusal or _OF_PARENT
        return inherited

    def __reduce__(self) -> NoReturn:
        raise TypeError(_NOT_PICKLED)

    def _refuse(self) -> None:
        if self._refusal:
            raise ClientClosed(self._refusal)

    async def _here(self) -> "_OfLoop":
        loop = asyncio.get_running_loop()
        if loop not in self._of_loops:
            self._refuse_second(loop)
            for other in list(self._of_loops):
                if other.is_closed():
                    self._of_loops.pop(other, None)
            here = _OfLoop(self._open_connection)
            await anext(here.until_shutdown)
            self._of_loops[loop] = here
        return self._of_loops[loop]

    def _refuse_second(self, loop: asyncio.AbstractEventLoop) -> None:
        self._first_loop = self._first_loop or loop
        if self._first_loop is not loop and isinstance(self._transport, httpx.AsyncHTTPTransport):
            raise ClientClosed(_OF_FIRST_LOOP)


class _OfLoop:
    """Places and connections of one event loop, which closes the connections when it shuts down."""

    def __init__(self, open_connection: Callable[[], httpx.AsyncClient]) -> None:
        self.pool = Pool(open_connection)
        self.places = asyncio.Semaphore(MAX_CALLS)
        self.until_shutdown = _until_shutdown(self.pool)


async def _until_shutdown(pool: Pool[httpx.AsyncClient]) -> AsyncGenerator[None]:
    """Closes the connections of ``pool`` in the loop that began this generator.

    A loop ends its generators before it closes (``asyncio.run`` sees to it), and also those that nobody refers to.
    """
    try:
        yield
    finally:
        await _aclose_all(pool.close())


_CLOSED: Final = "the client is closed"
_NOT_PICKLED: Final = "a client cannot be pickled: make one in each process"
_REMEDY: Final = "make a client here, or pass a function that makes the transport"
_OF_PARENT: Final = f"the client's transport belongs to the process that made it: {_REMEDY}"
_OF_FIRST_LOOP: Final = f"the client's transport belongs to the event loop that first used it: {_REMEDY}"
_of_this_process: Final[WeakSet[Connections | AsyncConnections]] = WeakSet()
# Collecting them would close what is the parent's, or warn that it is open.
_of_parents: Final[list[object]] = []


def _start_in_child() -> None:
    _of_parents.extend(owner.start_in_child() for owner in _of_this_process)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_in_child)


def _close_all(connections: list[httpx.Client]) -> None:
    for http in connections:
        http.close()


async def _aclose_all(connections: list[httpx.AsyncClient]) -> None:
    for http in connections:
        await http.aclose()


def _no_place() -> DeadlineExceeded:
    return DeadlineExceeded(f"the deadline passed while {MAX_CALLS} other calls of this client were under way")
