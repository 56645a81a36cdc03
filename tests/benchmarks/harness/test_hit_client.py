import asyncio
from contextlib import closing, suppress

import pytest

from benchmarks.harness import hit_client


@pytest.mark.parametrize("status", [200, 429])
def test_the_hit_client_sends_every_request_and_fails_on_a_reply_that_is_no_200(status: int) -> None:
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = hit_client.LENGTH.search(head)
                assert length is not None
                received.append(await reader.readexactly(int(length[1])))
                writer.write(b"HTTP/1.1 %d Status\r\nContent-Length: 2\r\n\r\n{}" % status)

    async def run() -> hit_client.Outcome:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            orders = {"url": url, "path": "/rank_actions", "body": {"items": []}, "requests": 7, "concurrency": 3}
            return await hit_client.run(orders)

    if status != 200:
        with pytest.raises(RuntimeError, match="429"):
            asyncio.run(run())
        return
    outcome = asyncio.run(run())
    assert received == [b'{"items": []}'] * 7
    assert (len(outcome.latency_ms), outcome.replies) == (7, {b"{}"})
