"""Headers are bounded in bytes, number and time, and so is whatever else the parser would keep."""

import select
import time

import pytest

from testbed.processes import PATIENCE
from tests.service.http.server.serving import connect, exchange, read_to_end, request, serving, status, told

LIMIT = 2000


def head_of(size: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\nConnection: close\r\nA: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


def test_headers_may_have_all_bytes_of_the_limit_and_not_one_more() -> None:
    with serving(header_bytes=LIMIT) as server:
        assert status(exchange(server.address, head_of(LIMIT))) == 200
        answer = exchange(server.address, head_of(LIMIT + 1))
        assert (status(answer), server.reason()) == (431, "header_bytes")
        assert told(answer)["error"] == {
            "code": "too_long",
            "message": f"the request has over {LIMIT} bytes before its body",
            "details": {"limit": LIMIT},
        }
        assert len(server.app.asked) == 1


@pytest.mark.parametrize("line", [b"A: " + b"a" * 97, b"a" * 100, b"\r\n" * 50, b"A: b\r\n" * 20], ids=repr)
def test_endless_headers_end_the_connection_after_the_limit(line: bytes) -> None:
    start = b"" if line.startswith(b"\r\n") else b"GET / HTTP/1.1\r\n"
    with serving(header_bytes=LIMIT, headers=10_000) as server, connect(server.address) as connection:
        connection.sendall(start)
        for _ in range(LIMIT // 100 + 1):
            connection.sendall(line)
        assert status(read_to_end(connection)) == 431
        assert (server.reason(), server.app.asked) == ("header_bytes", [])


@pytest.mark.parametrize(
    ("endless", "reason"),
    [(b"1;" + b"e" * 5000, "header_bytes"), (b"0\r\n" + b"A: b\r\n" * 20, "headers"), (b"0\r\nA: ", "header_bytes")],
)
def test_what_follows_a_body_is_bounded_too(endless: bytes, reason: str) -> None:
    """Extensions of a chunk and fields of a trailer."""
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with serving(header_bytes=LIMIT, headers=10) as server, connect(server.address) as connection:
        connection.sendall(chunked + endless + b"a" * 2 * LIMIT)
        assert (status(read_to_end(connection)), server.reason()) == (431, reason)


def test_a_trailer_adds_no_header() -> None:
    chunked = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    )
    with serving() as server:
        answer = told(exchange(server.address, chunked))
    assert (answer["body"], answer["headers"]) == ("hello", ["transfer-encoding", "connection"])


def test_a_request_may_have_a_number_of_headers_and_not_one_more() -> None:
    with serving(headers=10) as server:
        for more, expected in ((8, 200), (9, 431)):
            lines = "".join(f"A{at}: b\r\n" for at in range(more))
            answer = exchange(server.address, f"GET / HTTP/1.1\r\n{lines}Connection: close\r\nA: b\r\n\r\n".encode())
            assert status(answer) == expected
        assert (server.reason(), len(server.app.asked)) == ("headers", 1)


def test_large_bodies_are_no_headers() -> None:
    body = b"a" * 100 * LIMIT
    with serving(header_bytes=LIMIT) as server:
        assert told(exchange(server.address, request("/", body, close=True)))["body"] == body.decode()


def test_headers_that_do_not_end_in_time_are_answered_408() -> None:
    with serving(header_seconds=0.05) as server:
        answer = exchange(server.address, b"GET / HTTP/1.1\r\nHost:")
        assert (status(answer), server.reason(), server.app.asked) == (408, "header_time", [])


def test_headers_that_keep_coming_slowly_are_answered_408() -> None:
    with serving(header_seconds=0.05) as server, connect(server.address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        give_up = time.monotonic() + PATIENCE
        while not select.select([connection], [], [], 0.01)[0] and time.monotonic() < give_up:
            connection.sendall(b"a")
        assert status(read_to_end(connection)) == 408


def test_the_next_request_of_a_connection_has_the_same_time_for_its_headers() -> None:
    with serving(header_seconds=0.05) as server:
        answer = exchange(server.address, request("/") + b"GET / HTTP/1.1\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"HTTP/1.1 408 Request Timeout\r\n" in answer


@pytest.mark.parametrize("before", [b"", request("/"), b"\r\n"], ids=["never asked", "asked once", "an empty line"])
def test_a_connection_without_a_request_is_closed(before: bytes) -> None:
    with serving(keep_alive_seconds=0.05) as server:
        answer = exchange(server.address, before)
        assert answer.count(b"HTTP/1.1 ") == before.count(b"HTTP/1.1")
