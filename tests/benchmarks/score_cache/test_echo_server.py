import asyncio

import httpx

from benchmarks.score_cache.echo_server import create_app
from benchmarks.workloads.textcraft import textcraft_load


def test_the_echo_answers_with_the_bytes_it_was_given() -> None:
    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(b'{"results":[]}'))
        async with httpx.AsyncClient(transport=transport, base_url="http://echo") as client:
            body = textcraft_load(1).bodies[0]
            return [await client.post("/rank_actions", json=body), await client.post("/rank_actions", content=b"{")]

    well, broken = asyncio.run(answers())
    assert (well.status_code, well.content) == (200, b'{"results":[]}')
    assert broken.status_code == 422
