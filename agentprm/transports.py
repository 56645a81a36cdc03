"""A transport of httpx that the caller passes, below the connections of a client."""

from collections.abc import Callable

import httpx

from agentprm.address import Address

Transport = httpx.BaseTransport | Callable[[], httpx.BaseTransport] | None
"""A transport for all connections, or a function that makes one for each."""
AsyncTransport = httpx.AsyncBaseTransport | Callable[[], httpx.AsyncBaseTransport] | None


def opener(service: Address, transport: Transport) -> Callable[[], httpx.Client]:
    """Returns a function that makes the httpx client of one connection."""
    if transport is None:
        return lambda: service.open(None)
    if isinstance(transport, httpx.BaseTransport):
        return lambda: service.open(_Shared(transport))
    return lambda: service.open(transport())


def async_opener(service: Address, transport: AsyncTransport) -> Callable[[], httpx.AsyncClient]:
    if transport is None:
        return lambda: service.open_async(None)
    if isinstance(transport, httpx.AsyncBaseTransport):
        return lambda: service.open_async(_AsyncShared(transport))
    return lambda: service.open_async(transport())


class _Shared(httpx.BaseTransport):
    """The caller's transport below one connection. Closing the connection leaves it open for the others."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.handle_request(request)


class _AsyncShared(httpx.AsyncBaseTransport):
    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)
