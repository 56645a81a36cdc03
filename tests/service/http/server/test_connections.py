"""Connections are bounded in number, and a server without descriptors goes on as soon as it has some."""

import errno
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from service.http.limits import MAX_CONNECTIONS, SPARE_DESCRIPTORS
from service.http.server.connections import REASONS, connections_within
from service.metrics.connections import REASONS as COUNTED
from testbed.processes import PATIENCE, wait_until
from tests.service.http.server.serving import (
    Serving,
    connect,
    exchange,
    read_reply,
    read_to_end,
    request,
    serving,
    status,
    told,
)

LIMIT = 3


class Exhausted(socket.socket):
    """A listening socket of a process that has no descriptor left for the next ``failures`` calls."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def hold(server: Serving, stack: ExitStack, connections: int) -> list[socket.socket]:
    """Opens connections with a request in flight each."""
    opened = [stack.enter_context(connect(server.address)) for _ in range(connections)]
    for connection in opened:
        connection.sendall(request("/held"))
        assert server.app.held.acquire(timeout=PATIENCE)
    return opened


def test_one_connection_too_many_is_told_503_while_every_other_is_busy() -> None:
    with serving(connections=LIMIT, displaced_seconds=0) as server, ExitStack() as stack:
        busy = hold(server, stack, LIMIT)
        answer = exchange(server.address, request("/"))
        assert (status(answer), server.reason()) == (503, "connections")
        assert b"connection: close\r\nretry-after: 1\r\n" in answer
        assert told(answer)["error"] == {
            "code": "not_ready",
            "message": "all connections of this service are in use",
            "details": {},
        }
        server.app.release()
        assert [status(read_reply(connection)) for connection in busy] == [200] * LIMIT
        assert server.app.asked == ["/held"] * LIMIT


def test_the_longest_idle_connection_makes_room_and_a_busy_one_never_does() -> None:
    with serving(connections=LIMIT, displaced_seconds=0) as server, ExitStack() as stack:
        busy = hold(server, stack, 1)
        silent, asked = [stack.enter_context(connect(server.address)) for _ in range(2)]
        server.wait_until_open(LIMIT)
        asked.sendall(request("/"))
        read_reply(asked)
        for gone in (silent, asked):
            new = stack.enter_context(connect(server.address))
            new.sendall(request("/held"))
            assert server.app.held.acquire(timeout=PATIENCE)
            assert (read_to_end(gone), server.reason()) == (b"", "displaced")
        server.app.release()
        assert status(read_reply(busy[0])) == 200


def test_a_flood_of_silent_connections_neither_exceeds_the_bound_nor_keeps_a_caller_out() -> None:
    with serving(connections=LIMIT, displaced_seconds=0) as server, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(server.address))
        assert {server.reason() for _ in range(200 - LIMIT)} <= {"connections", "displaced"}
        server.wait_until_open(LIMIT)
        # Connections that are being closed for others still count: a caller may have to come again, as 503 says.
        wait_until(lambda: status(exchange(server.address, request("/", close=True))) == 200, "a caller is kept out")


def test_a_connection_that_has_just_come_is_not_closed_for_another() -> None:
    with serving(connections=1, displaced_seconds=PATIENCE) as server, connect(server.address) as first:
        server.wait_until_open(1)
        assert status(exchange(server.address, request("/"))) == 503
        first.sendall(request("/"))
        assert status(read_reply(first)) == 200


def test_a_refused_caller_who_sends_nothing_is_closed_soon() -> None:
    with serving(connections=1, refused_seconds=0.05) as server, ExitStack() as stack:
        hold(server, stack, 1)
        assert exchange(server.address) == b""


def test_without_descriptors_it_says_so_and_accepts_as_soon_as_there_are_some() -> None:
    with serving(Exhausted()) as server:
        assert status(exchange(server.address, request("/", close=True))) == 200
        assert [server.reason() for _ in range(Exhausted.failures)] == ["descriptors"] * Exhausted.failures


def test_a_flood_of_one_reason_is_one_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        for _ in range(5):
            exchange(server.address, b"garbage\r\n\r\n")
    assert [message for message in caplog.messages if "connections were" in message] == [
        "1 connections were ended: their requests are no valid HTTP/1.1"
    ]


def test_connections_leave_descriptors_for_the_rest_of_the_process() -> None:
    assert connections_within(1 << 20) == MAX_CONNECTIONS
    assert connections_within(1024) == 1024 - SPARE_DESCRIPTORS
    assert connections_within(64) == 32


def test_every_reason_is_counted() -> None:
    assert set(COUNTED) == set(REASONS)
