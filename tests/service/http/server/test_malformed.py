"""Requests whose ends two parsers could see at different places are refused, and replies stay in order."""

from collections.abc import Iterator

import pytest

from tests.service.http.server.serving import (
    Serving,
    connect,
    exchange,
    read_to_end,
    request,
    serving,
    status,
    told,
)

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "folded line": POST + b"A: b\r\n c: d\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "bare line feed in a header": POST + b"A: b\nC: d\r\nContent-Length: 0\r\n\r\n",
    "bare carriage return": POST + b"A: b\rC: d\r\nContent-Length: 0\r\n\r\n",
    "zero byte": POST + b"A: b\0\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\n\r\n",
    "negative chunk": CHUNKED + b"\r\n-1\r\n",
    "chunk with 0x": CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"\r\nfffffffffffffffff\r\n",
    "chunk with a line feed": CHUNKED + b"\r\n5\nhello\n0\n\n",
    "chunk longer than its size": CHUNKED + b"\r\n5\r\nhelloX0\r\n\r\n",
    "length in a trailer": CHUNKED + b"\r\n5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_without_a_clear_end_is_answered_400_and_the_connection_closed(server: Serving, sent: bytes) -> None:
    answer = exchange(server.address, sent + request("/next"))
    assert (status(answer), server.reason()) == (400, "malformed")
    assert answer.count(b"connection: close") == 1
    envelope = {"code": "invalid", "message": "this is no valid HTTP/1.1 request", "details": {}}
    assert told(answer)["error"] == envelope
    assert "/next" not in server.app.asked


def test_a_request_before_garbage_gets_its_reply() -> None:
    with serving() as server:
        with connect(server.address) as connection:
            connection.sendall(request("/held") + b"garbage\r\n\r\n")
            assert server.reason() == "malformed"
            server.app.release()
            answer = read_to_end(connection)
        assert (status(answer), told(answer)["path"]) == (200, "/held")


def test_requests_sent_ahead_are_answered_in_order_up_to_a_number() -> None:
    with serving(pipelined=4) as server:
        server.app.release()
        few = exchange(server.address, b"".join(request(f"/{at}") for at in range(3)) + request("/last", close=True))
        assert [few.find(b'"path": "/%d"' % at) > 0 for at in range(3)] == [True] * 3
        assert told(few)["path"] == "/last"
        server.app.asked.clear()
        exchange(server.address, b"".join(request("/held") for _ in range(1000)))
        assert len(server.app.asked) <= 4 + 1
        assert server.reason() == "pipelined"
