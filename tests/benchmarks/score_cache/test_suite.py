import asyncio
import json
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from agentprm.wire import RankRequest
from benchmarks.harness import hit_client
from benchmarks.report import as_markdown
from benchmarks.score_cache.echo_server import create_app
from benchmarks.score_cache.report import cache_section
from benchmarks.score_cache.suite import differing
from benchmarks.workloads.requests import as_call
from benchmarks.workloads.textcraft import PROPOSALS, record, textcraft, textcraft_load
from model_store.format.store import Store
from model_store.text.renderer import load_renderer
from service.settings import CHECKPOINTS
from testbed.processes import Server

WALL = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "samples": 9}
RATIO = {"median": 5.0, "least": 4.0, "most": 6.0}
EQUAL = {"max_diff": 1e-7, "equal": True}


def sample() -> dict[str, Any]:
    """What ``bench_cache`` returns, with made-up numbers."""
    tokens = {"computed": 1234.0, "prefix_cache": 5.0, "score_cache": 6.0}
    who = ("first", "joined", "alone")
    configuration = {
        "first_cpu_ms_by_round": [40.0, 42.0],
        "again_cpu_ms_by_round": [0.5, 1.5],
        "first_over_again": RATIO,
        "first_wall_ms": WALL,
        "again_wall_ms": WALL,
        "computed_again": 0.0,
    }
    hit = {"requests_per_cpu_second": 2000.4, "requests_per_second": 1500.0, "wall_ms": WALL}
    phase = {"phase": "it hangs, breaker open", "wall_ms": WALL, "redis_asked": 0.0}
    return {
        "redis": "Valkey server v=9.1.2",
        "replica": [
            {
                "model": "demo",
                "case": "TextCraft as sent",
                "tokens": {one: [tokens] for one in who},
                "cpu_seconds": {one: [0.25] for one in who},
                "computed_share": 0.012,
                "alone_over_joined": RATIO,
                **EQUAL,
            }
        ],
        "repeat": {
            "case": "P=256 N=4, model tiny",
            "rankings_a_round": 2,
            "times": 50,
            "configurations": {"memory": configuration},
            **EQUAL,
        },
        "hits": [
            {
                "case": "P=256 N=4",
                "concurrency": 8,
                "body_bytes": 2082,
                "reply_bytes": 596,
                "servers": {"agentprm": hit, "echo": hit},
                "over_echo": RATIO,
                **EQUAL,
            }
        ],
        "hang": {
            "case": "one caller",
            "budget_ms": 25.0,
            "phases": [phase],
            "requests_until_open": [3, 3, 4],
            "added_until_open_ms": [25.12, 31.0, 26.0],
            "seconds_until_closed": [0.75, 0.75],
        },
    }


def test_the_report_tells_what_was_measured() -> None:
    text = cache_section(sample())
    for told in (
        "computed 1.2% of the tokens",
        "| joined | 1,234 | 5 | 6 | 0.25 |",
        "| memory | 41.0 | 1.00 | 5.00 (4.00-6.00) |",
        "| 8 | agentprm | 2000 | 1500 | 1.00 / 2.00 / 3.00 (n=9) | 5.00 (4.00-6.00) |",
        "opened after 3-4 requests, which took 26.0 ms longer than usual, at most 31.0 (budget: 25 ms).",
        "breakers had closed 0.8 s after",
        "| it hangs, breaker open | 1.0 / 2.0 / 3.0 (n=9) | 0% |",
    ):
        assert told in text
    assert "DIFFER" not in text


def test_a_remembered_score_that_is_wrong_is_named() -> None:
    document = sample()
    assert not differing(document)
    document["hits"][0] |= {"equal": False, "max_diff": 0.5}
    assert differing(document) == ["P=256 N=4"]
    assert "DIFFER (max diff 5.0e-01)" in cache_section(document)


def test_the_cache_has_its_place_in_the_results() -> None:
    conditions = {
        "cpu": "a CPU",
        "cores": 2,
        "torch_threads": 1,
        "load_average": [0.5, 0.5, 0.5],
        "torch": "2",
        "transformers": "5",
        "python": "3.11",
        "commit": "0" * 40,
        "uncommitted_changes": False,
        "date": "today",
        "sizes": "quick",
        "rounds": 3,
    }
    text = as_markdown([], None, {"conditions": conditions, **sample()})
    assert text.index("## Score cache") < text.index("a CPU, 2 cores") < text.index("### A replica joins")


def test_recorded_traffic_is_requests_for_the_scores_that_the_engine_is_asked_for() -> None:
    load, (sent, _) = textcraft_load(1), textcraft(1)
    renderer, _ = record(1)
    assert [as_call(renderer, load.path, [body]) for body in load.bodies] == list(sent.calls)
    for body in load.bodies:
        (item,) = RankRequest.model_validate(body).items
        assert len(item.candidates or ()) == PROPOSALS
    assert load.items == sent.items


def test_the_bundled_checkpoint_reads_the_recorded_traffic() -> None:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    vocabulary = json.loads((checkpoint.path / "tokenizer.json").read_text())["model"]["vocab"]
    load = textcraft_load(2)
    call = as_call(load_renderer(checkpoint), load.path, load.bodies)
    assert all(vocabulary["<unk>"] not in ids for ids in call.token_ids)
    assert max(map(len, call.token_ids)) <= checkpoint.manifest.context_length


def test_the_echo_answers_with_the_bytes_it_was_given() -> None:
    async def answers() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(b'{"results":[]}'))
        async with httpx.AsyncClient(transport=transport, base_url="http://echo") as client:
            body = textcraft_load(1).bodies[0]
            return [await client.post("/rank_actions", json=body), await client.post("/rank_actions", content=b"{")]

    well, broken = asyncio.run(answers())
    assert (well.status_code, well.content) == (200, b'{"results":[]}')
    assert broken.status_code == 422


@pytest.mark.parametrize("status", [200, 429])
def test_the_hit_client_sends_so_many_and_takes_nothing_but_hits(status: int) -> None:
    received: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = hit_client.LENGTH.search(head)
                assert length is not None
                received.append(await reader.readexactly(int(length[1])))
                writer.write(b"HTTP/1.1 %d Told\r\nContent-Length: 2\r\n\r\n{}" % status)

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


def test_a_metric_is_the_sum_of_the_samples_with_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '# TYPE t counter\nt{model="a",source="computed"} 2.0\nt{model="b",source="computed"} 3.0\nt{source="x"} 9.0\n'
    )
    reply = httpx.Response(200, text=f"{text}tt 4.0\n", request=httpx.Request("GET", "http://one"))
    monkeypatch.setattr(httpx, "get", lambda _: reply)
    server = Server("one", "http://one", 1)
    assert server.metric("t", source="computed") == 5
    assert server.metric("tt") == 4
    with pytest.raises(LookupError):
        server.metric("ttt")
