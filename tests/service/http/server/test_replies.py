"""A caller gets a reply that comes early, and one who takes none does not hold its place."""

import socket

import pytest

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

LARGE = b"x" * (16 << 20)


def test_a_caller_who_sends_16_mib_first_and_reads_then_gets_the_early_reply() -> None:
    with serving() as server:
        answer = exchange(server.address, request("/early", LARGE, close=True))
        assert (status(answer), told(answer)["path"]) == (200, "/early")
        assert b"connection: close" in answer


def test_after_an_early_reply_a_connection_that_is_kept_goes_on() -> None:
    with serving() as server, connect(server.address) as connection:
        connection.sendall(request("/early", LARGE))
        assert told(read_reply(connection))["path"] == "/early"
        connection.sendall(request("/next"))
        assert told(read_reply(connection))["path"] == "/next"


@pytest.mark.parametrize("close", [False, True])
def test_the_rest_of_a_body_is_bounded_in_bytes(close: bool) -> None:
    with serving(unread_bytes=1 << 20) as server:
        with connect(server.address) as connection, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            connection.sendall(request("/early", LARGE * 8, close=close))
        assert server.reason() == "unread"


@pytest.mark.parametrize("close", [False, True])
def test_the_rest_of_a_body_is_bounded_in_time(close: bool) -> None:
    with serving(unread_seconds=0.05) as server, connect(server.address) as connection:
        connection.sendall(request("/early", b"hello", close=close)[:-1])
        assert (status(read_to_end(connection)), server.reason()) == (200, "unread")


def ask_and_read_nothing(server: Serving) -> socket.socket:
    connection = connect(server.address, received=4096)
    connection.sendall(request("/large"))
    return connection


def test_a_caller_who_takes_no_reply_is_cut_off_and_its_request_ends() -> None:
    with serving(write_seconds=0.05) as server, ask_and_read_nothing(server):
        assert server.reason() == "write_time"
        assert server.app.ended.acquire(timeout=30)
        server.wait_until_open(0)


def test_a_caller_who_takes_its_reply_is_not_cut_off_however_many_times_the_limit_passes() -> None:
    """The bytes of progress are so few that every read is progress."""
    with serving(write_seconds=0.2, write_bytes=1) as server, connect(server.address) as connection:
        connection.sendall(request("/large", close=True))
        assert len(read_to_end(connection)) > 512 << 16


def test_a_caller_who_leaves_an_early_reply_unread_and_sends_nothing_more_is_forgotten() -> None:
    with serving(unread_seconds=0.05, write_seconds=0.05) as server, connect(server.address) as connection:
        connection.sendall(request("/early", b"hello")[:-1])
        server.wait_until_open(0)
