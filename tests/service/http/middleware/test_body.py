"""Only bodies that a route takes are read, decoded within the limit, and refused as soon as they are too large."""

import asyncio
import gzip
import zlib
from collections.abc import Iterable
from typing import Any

import pytest

from agentprm.errors import InvalidRequest, RequestError, TooLong, UnsupportedMediaType
from agentprm.wire.size import MAX_VALUES
from service.http.loop_turns import LoopTurns
from service.http.middleware.asgi import Message, Receive, Scope, Send
from service.http.middleware.body import BufferedBody
from service.http.middleware.content_encoding import NAMED, PIECE
from tests.service.echo_app import PATIENCE, item, serving

PATH = "/score_step"
MAX_BYTES = 4 * 1024 * 1024
WHOLE = gzip.compress(b"{}", mtime=0)
JSON_TYPE = {"content-type": "application/json"}


class Client:
    """Sends pieces; ``read`` counts those that were received."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True) -> None:
        self._pieces = list(pieces)
        self._ends = ends
        self.read = 0

    async def receive(self) -> Message:
        if self.read == len(self._pieces):
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        self.read += 1
        more = not self._ends or self.read < len(self._pieces)
        return {"type": "http.request", "body": self._pieces[self.read - 1], "more_body": more}


def received(client: Client, encoding: bytes = b"", **scope: Any) -> bytes:
    """Sends a request through the layer. Returns the body that the application gets, whose length it is told."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        seen.append((await receive())["body"])
        assert "state" not in scope or scope["state"]["body_bytes"] == len(seen[0])

    async def send(_: Message) -> None:
        raise AssertionError

    headers = [(b"content-encoding", encoding)] if encoding else []
    request = {"type": "http", "method": "POST", "path": PATH, "headers": headers, **scope}
    layer = BufferedBody(app, paths=[PATH], max_bytes=MAX_BYTES, turns=LoopTurns(0))
    asyncio.run(asyncio.wait_for(layer(request, client.receive, send), PATIENCE))
    return seen[0]


def refusal(client: Client, encoding: bytes = b"") -> RequestError:
    with pytest.raises(RequestError) as caught:
        received(client, encoding)
    return caught.value


@pytest.mark.parametrize(
    "scope", [{"path": "/health"}, {"path": "/models"}, {"path": "/none"}, {"method": "PUT"}, {"method": "GET"}]
)
def test_no_body_is_read_where_no_route_takes_one(scope: dict[str, Any]) -> None:
    client = Client([b"x" * PIECE] * 100)
    assert received(client, **scope) == b"x" * PIECE, "the application itself may read"
    assert client.read == 1


def test_a_body_of_many_values_is_refused_before_the_rest_of_it_comes() -> None:
    client = Client([b"0," * (PIECE // 2)] * 64)
    assert isinstance(refusal(client), TooLong)
    assert client.read == 2 * MAX_VALUES // PIECE + 1


def test_a_body_arrives_whole_however_it_is_cut() -> None:
    body = bytes(range(256)) * 10
    assert received(Client([body[:1], body[1:700], b"", body[700:]])) == body


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b"GZip", b"identity", b""])
def test_a_body_is_decoded(encoding: bytes) -> None:
    body = bytes(range(256)) * 1000
    sent = gzip.compress(body) if b"z" in encoding.lower() else body
    assert received(Client([sent[:9], sent[9:]]), encoding) == body


def test_the_decoded_bytes_count_and_a_bomb_is_refused_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    make = zlib.decompressobj

    class Counting:
        def __init__(self, *options: Any) -> None:
            self._stream = make(*options)

        def decompress(self, *options: Any) -> bytes:
            nonlocal decoded
            piece = self._stream.decompress(*options)
            decoded += len(piece)
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    bomb = gzip.compress(b" " * 200 * 1024 * 1024, 1)
    assert len(bomb) < MAX_BYTES
    error = refusal(Client([bomb]), b"gzip")
    assert isinstance(error, TooLong)
    assert error.details == {"limit": MAX_BYTES}
    assert decoded <= MAX_BYTES + PIECE


def test_the_encoded_bytes_count_too() -> None:
    empty_blocks = zlib.compressobj(wbits=31)
    head = empty_blocks.compress(b"") + empty_blocks.flush(zlib.Z_FULL_FLUSH)
    block = empty_blocks.flush(zlib.Z_FULL_FLUSH) or b"\x00\x00\x00\xff\xff"
    client = Client([head, *[block * (PIECE // len(block))] * 100], ends=False)
    assert isinstance(refusal(client, b"gzip"), TooLong)


@pytest.mark.parametrize("sent", [b"", b"{}", WHOLE[:-1], WHOLE + b"x", WHOLE * 2, zlib.compress(b"{}")])
def test_what_is_not_one_whole_gzip_stream_is_422(sent: bytes) -> None:
    assert isinstance(refusal(Client([sent]), b"gzip"), InvalidRequest)


@pytest.mark.parametrize("encoding", [*(name.encode() for name in NAMED), b"gzip, gzip", b"MY-SECRET", b"\xff"])
def test_another_encoding_is_415_before_the_body_is_read(encoding: bytes) -> None:
    client = Client([b"x"])
    error = refusal(client, encoding)
    assert isinstance(error, UnsupportedMediaType)
    assert "SECRET" not in str(error.envelope()).upper()
    assert (encoding.decode("latin-1") in error.message) == (encoding.decode("latin-1") in NAMED)


def test_a_compressed_request_is_scored_as_the_same_one_in_plain() -> None:
    async def scenario() -> None:
        async with serving() as client:
            plain = client.build_request("POST", PATH, json={"items": [item()]})
            expected = await client.send(plain)
            headers = {**JSON_TYPE, "content-encoding": "gzip"}
            reply = await client.post(PATH, content=gzip.compress(plain.content), headers=headers)
            assert reply.json()["results"][0]["promise"] == expected.json()["results"][0]["promise"]
            refused = await client.post(PATH, content=b"x", headers={**JSON_TYPE, "content-encoding": "br"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")
            assert "not br" in refused.json()["error"]["message"]

    asyncio.run(scenario())
