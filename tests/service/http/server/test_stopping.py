"""A signal to stop: whoever the kernel has let in gets a reply."""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.http.limits import BACKLOG
from service.http.server.connections import ConnectionLimits, Connections
from service.http.server.listener import Listener
from testbed.processes import HOST, PATIENCE, wait_until
from tests.service.http.server.serving import (
    Serving,
    connect,
    read_reply,
    read_to_end,
    request,
    serving,
    status,
    told,
)


def stop_and_wait(server: Serving) -> None:
    """Tells the server to stop, and waits until it has stopped listening."""
    server.stop()
    wait_until(lambda: server.listening.fileno() == -1, "the server still listens")


def test_connections_that_wait_to_be_accepted_are_answered_503() -> None:
    waiting, reasons = 100, list[str]()

    async def stop(listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connections = Connections(loop, ConnectionLimits(), set(), reasons.append)
        await Listener(listening, lambda: pytest.fail("accepted"), connections, None).stop()

    with socket.socket() as listening, ThreadPoolExecutor(waiting) as threads:
        listening.bind((HOST, 0))
        listening.listen(BACKLOG)
        listening.setblocking(False)
        callers = [connect(listening.getsockname()) for _ in range(waiting)]
        for caller in callers:
            caller.sendall(request("/", b"hello"))
        answers = [threads.submit(read_to_end, caller) for caller in callers]
        asyncio.run(stop(listening))
        for answer in answers:
            got = answer.result(timeout=PATIENCE)
            assert status(got) == 503
            assert b"connection: close\r\nretry-after: 1\r\n" in got
            assert told(got)["error"] == {"code": "not_ready", "message": "the service stops", "details": {}}
        for caller in callers:
            caller.close()
        assert (reasons, listening.fileno()) == (["stopping"] * waiting, -1)


def test_a_request_in_flight_is_answered_and_a_new_connection_is_refused_by_the_kernel() -> None:
    with serving() as server, connect(server.address) as connection:
        connection.sendall(request("/held"))
        assert server.app.held.acquire(timeout=PATIENCE)
        stop_and_wait(server)
        with pytest.raises(ConnectionRefusedError):
            connect(server.address)
        server.app.release()
        answer = read_to_end(connection)
        assert (status(answer), b"connection: close" in answer) == (200, True)


@pytest.mark.parametrize("before", [0, 1], ids=["new", "kept"])
def test_an_open_connection_gets_a_reply_to_a_request_that_is_on_its_way(before: int) -> None:
    with serving(last_request_seconds=PATIENCE) as server, connect(server.address) as connection:
        server.wait_until_open(1)
        for _ in range(before):
            connection.sendall(request("/"))
            read_reply(connection)
        stop_and_wait(server)
        connection.sendall(request("/last"))
        answer = read_to_end(connection)
        assert (status(answer), told(answer)["path"], b"connection: close" in answer) == (200, "/last", True)


def test_a_request_that_has_begun_is_finished() -> None:
    sent = request("/", b"hello")
    with serving(last_request_seconds=0) as server, connect(server.address) as connection:
        connection.sendall(sent[:20])
        server.wait_until_open(1)
        wait_until(lambda: heads(server) == 1, "the headers have not begun")
        stop_and_wait(server)
        connection.sendall(sent[20:])
        assert told(read_to_end(connection))["body"] == "hello"


def heads(server: Serving) -> int:
    """Returns how many connections wait for the rest of their headers."""
    connections = server.server.server_state.connections
    return sum(connection in server.server._connections.heads for connection in connections)  # type: ignore[union-attr, operator]


def test_connections_without_a_request_are_closed() -> None:
    with serving(last_request_seconds=0) as server:
        with connect(server.address) as connection:
            server.wait_until_open(1)
            server.stop()
            assert read_to_end(connection) == b""
        server.join()
    assert server.reasons.empty()
