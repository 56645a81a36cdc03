"""Parts of uvicorn and httptools that our subclasses rely on. A version that changes one needs a look at them."""

import asyncio
import inspect
from unittest.mock import Mock

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.http.server.protocol import HTTPProtocol, ReplyTransport
from service.http.server.server import Server, server_config
from tests.service.http.server.serving import Application

CALLBACKS = ["message_begin", "url", "header", "headers_complete", "body", "message_complete", "response_complete"]
CYCLE = {"transport", "keep_alive", "disconnected", "more_body", "message_event", "response_started"}


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("base", [HttpToolsProtocol, uvicorn.Server])
def test_what_is_overridden_exists_with_the_same_parameters(base: type) -> None:
    ours = HTTPProtocol if base is HttpToolsProtocol else Server
    shared = {name for name in vars(ours) if inspect.isfunction(getattr(base, name, None))} - {"__init__"}
    for name in shared:
        assert parameters(getattr(ours, name)) == parameters(getattr(base, name)), name
    if base is HttpToolsProtocol:
        assert shared >= {"connection_made", "connection_lost", "data_received", "pause_writing", "shutdown"}
        assert shared >= {f"on_{name}" for name in CALLBACKS if name != "url"}
    else:
        assert shared == {"startup", "shutdown"}


def test_uvicorn_makes_a_protocol_from_the_same_arguments() -> None:
    assert parameters(HttpToolsProtocol) == ["config", "server_state", "app_state", "_loop"]
    assert parameters(HTTPProtocol)[:4] == parameters(HttpToolsProtocol)


def test_a_protocol_keeps_what_ours_reads() -> None:
    async def attributes() -> set[str]:
        config = server_config(Application(), drain_seconds=1)
        return set(vars(HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())))

    names = asyncio.run(attributes())
    assert names >= {"parser", "transport", "pipeline", "cycle", "headers", "timeout_keep_alive_task", "loop"}


def test_a_request_uses_of_its_transport_only_what_ours_has() -> None:
    source = inspect.getsource(RequestResponseCycle)
    used = {word.partition("(")[0] for word in source.replace("self.transport.", "\0").split("\0")[1:]}
    assert used == {"write", "close", "is_closing"}
    assert all(hasattr(ReplyTransport(asyncio.Transport(), Mock()), name) for name in used)
    assert all(f"self.{name} =" in source for name in CYCLE)


def test_the_configuration_leaves_nothing_to_what_is_installed() -> None:
    config = server_config(Application(), drain_seconds=1)
    assert (config.http, config.loop, config.ws) == (HTTPProtocol, "uvloop", "none")


def test_the_parser_takes_the_bytes_after_an_upgrade_for_another_protocol() -> None:
    """Were it not so, ``HTTPProtocol`` would need no second parse."""
    begun = []

    class Counting:
        def on_message_begin(self) -> None:
            begun.append(1)

    parser = httptools.HttpRequestParser(Counting())
    upgrade = b"POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        parser.feed_data(upgrade + b"hello")
    assert (raised.value.args, begun) == ((len(upgrade),), [1])
