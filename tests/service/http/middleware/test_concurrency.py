"""Requests refused before their body is read, and that refusals cost other callers nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentprm.errors import Overloaded
from service.access.api_keys import new_key
from service.app import PRIORITIES
from service.http.limits import HELD_SECONDS
from service.http.middleware.concurrency import InFlightRequests, RefusalPace, caller_of, priority_of
from service.http.routes.scores import SCORE_ROUTES
from service.queue.fair_queue import Priority
from service.queue.shares import PLACES_PER_FREE_PLACE
from tests.service.echo_app import PATIENCE, GatedEngine, item, loaded, metric, serving
from tests.service.http.routes.test_under_load import queued_tokens

Reply = asyncio.Task[httpx.Response]
BODY = {"items": [item()]}
FULL = 22
"""Tokens of ``BODY``."""


async def unread() -> AsyncIterator[bytes]:
    """A body that may be read only once at most: a server may have read it with the headers."""
    yield b"{"
    raise AssertionError("the body was read")


def score(client: httpx.AsyncClient, **how: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(client.post("/score_step", **{"json": BODY, **how}))


def test_over_the_limit_of_requests_the_answer_is_429_and_a_place_is_free_again_after_a_reply() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_requests=2) as client:
            async with engine.held():
                admitted = [score(client)]
                await engine.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=1)
                refused = await client.post("/rank_actions", content=unread())
                assert refused.status_code == 429
                assert refused.json()["error"]["code"] == "overloaded"
                assert refused.json()["error"]["details"] == {"running": 2, "limit": 2, "held": 2}
                assert refused.headers["retry-after"] == "1"
                assert (await client.get("/models")).status_code == 200
                assert (await client.get("/ready")).status_code == 200
            assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
            assert (await score(client)).status_code == 200
            assert await metric(client, 'agentprm_rejected_total{reason="overloaded"}') == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"{", b'{"items": []}'])
def test_a_request_that_fails_gives_its_place_back(body: bytes) -> None:
    async def scenario() -> None:
        async with serving(max_requests=1) as client:
            for _ in range(3):
                assert (await client.post("/score_step", content=body)).status_code == 422
            assert (await score(client)).status_code == 200

    asyncio.run(scenario())


def test_once_the_queue_has_refused_nothing_is_read_until_something_has_drained() -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_queue_tokens=FULL) as client:
            async with engine.held():
                admitted = [score(client)]
                await engine.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=FULL)
                assert (await score(client)).status_code == 429
                refused = await client.post("/score_step", content=unread())
                assert refused.status_code == 429
                assert refused.json()["error"]["details"]["limit"] == FULL
            assert [reply.status_code for reply in await asyncio.gather(*admitted)] == [200, 200]
            assert (await score(client)).status_code == 200

    asyncio.run(scenario())


def test_while_another_models_queue_has_room_the_body_is_read() -> None:
    """A request that arrives while one model's queue is full may be for another model."""

    async def scenario() -> None:
        busy = GatedEngine()
        async with serving(loaded(busy), loaded(GatedEngine(), "idle"), max_queue_tokens=FULL) as client:
            async with busy.held():
                admitted = [score(client)]
                await busy.entered()
                admitted.append(score(client))
                await queued_tokens(client, at_least=FULL)
                assert (await score(client)).status_code == 429
                other = score(client, json={"model": "idle", **BODY})
                await asyncio.sleep(0)
            assert (await other).status_code == 200
            await asyncio.gather(*admitted)

    asyncio.run(scenario())


def test_a_key_that_has_sent_all_it_may_is_told_when_to_come_back_and_no_other_is(tmp_path: Path) -> None:
    (few, limited), (many, unlimited) = new_key("few", rate="2/h"), new_key("many")
    (tmp_path / "keys").write_text(f"{limited}\n{unlimited}\n")

    async def scenario() -> None:
        async with serving(api_keys_file=tmp_path / "keys") as client:
            mine = {"authorization": f"Bearer {few}"}
            assert [(await score(client, headers=mine)).status_code for _ in range(2)] == [200, 200]
            refused = await client.post("/rank_actions", content=unread(), headers=mine)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "rate_limited"
            assert refused.json()["error"]["details"] == {"requests": 2, "seconds": 3600.0}
            assert 1700 < int(refused.headers["retry-after"]) <= 1800
            assert (await client.get("/models", headers=mine)).status_code == 200, "it costs no forward"
            theirs = {"authorization": f"Bearer {many}"}
            assert [(await score(client, headers=theirs)).status_code for _ in range(4)] == [200] * 4
            assert (
                'agentprm_rejected_total{reason="rate_limited"} 1'
                in (await client.get("/metrics", headers=theirs)).text
            )

    asyncio.run(scenario())


@asynccontextmanager
async def two_callers(
    directory: Path, engine: GatedEngine, **settings: Any
) -> AsyncIterator[tuple[Callable[..., Reply], Callable[..., Reply]]]:
    """Two functions that post a step, each with a key of its own; their arguments are those of ``score``."""
    (first, one), (second, two) = new_key("flood"), new_key("other")
    (directory / "keys").write_text(f"{one}\n{two}\n")
    async with serving(engine, api_keys_file=directory / "keys", **settings) as client:

        def sender(key: str) -> Callable[..., Reply]:
            def send(priority: str = "interactive", **how: Any) -> Reply:
                headers = {"authorization": f"Bearer {key}", "x-priority": priority}
                return score(client, headers=headers, **how)

            return send

        yield sender(first), sender(second)


async def answered(requests: Collection[Reply], number: int) -> list[int]:
    """Returns the statuses of the first ``number`` of these requests that are answered."""
    async with asyncio.timeout(PATIENCE):
        while sum(request.done() for request in requests) < number:
            await asyncio.wait({each for each in requests if not each.done()}, return_when="FIRST_COMPLETED")
    return [request.result().status_code for request in requests if request.done()]


@pytest.mark.parametrize("priority", Priority)
def test_a_queue_that_one_caller_has_filled_is_closed_for_that_caller_alone(tmp_path: Path, priority: str) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with two_callers(tmp_path, engine, max_queue_tokens=4 * FULL) as (flood, other):
            async with engine.held():
                running = flood()
                await engine.entered()
                crowd = [flood(priority) for _ in range(9)]
                assert await answered(crowd, 5) == [429] * 5
                refused = await flood(priority, json=None, content=unread())
                assert refused.json()["error"]["details"]["held"] == 4 * FULL
                others = [other(), other()]
                assert await answered(crowd, 7) == [429] * 7, "two give way"
                assert not any(request.done() for request in others)
            served = [running, *others, *(request for request in crowd if not request.done())]
            assert [reply.status_code for reply in await asyncio.gather(*served)] == [200] * 5

    asyncio.run(scenario())


def test_one_caller_leaves_places_for_others_however_many_requests_it_sends(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        async with two_callers(tmp_path, engine, max_requests=18) as (flood, other):
            async with engine.held():
                crowd = [flood() for _ in range(30)]
                assert await answered(crowd, 14) == [429] * 14
                kept = [request for request in crowd if not request.done()]
                others = [other(), other()]
                await engine.entered()
            assert [reply.status_code for reply in await asyncio.gather(*others, *kept)] == [200] * 18

    asyncio.run(scenario())


@pytest.mark.parametrize("limit", [1, 2, 8, 9, 100, 1024])
def test_a_lone_caller_takes_all_places_but_a_ninth(limit: int) -> None:
    in_flight = InFlightRequests(limit)
    with ExitStack() as held:
        for _ in range(limit - limit // (PLACES_PER_FREE_PLACE + 1)):
            held.enter_context(in_flight.slot("flood"))
        with pytest.raises(Overloaded) as refused:
            in_flight.slot("flood").__enter__()
        assert refused.value.details == {"running": in_flight.running, "limit": limit, "held": in_flight.running}
        if limit > PLACES_PER_FREE_PLACE:
            held.enter_context(in_flight.slot("other"))
    assert in_flight.running == 0


def test_the_priority_of_a_request_that_names_none_is_that_of_its_route() -> None:
    async def scenario() -> None:
        async with serving() as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
        named = {
            path: next(
                each["schema"]["default"] for each in paths[path]["post"]["parameters"] if "priority" in each["name"]
            )
            for path in SCORE_ROUTES
        }
        assert named == PRIORITIES

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("value", "priority"),
    [(b"bulk", Priority.BULK), (b"interactive", Priority.INTERACTIVE), (b"Bulk", None), (b"\xff", None), (b"", None)],
)
def test_a_header_with_no_known_priority_is_left_to_the_route(value: bytes, priority: Priority | None) -> None:
    for default in Priority:
        assert priority_of({"headers": [(b"x-priority", value)]}, default) is (priority or default)


def test_a_caller_is_a_key_and_without_keys_the_address_of_the_peer() -> None:
    assert caller_of({"state": {"key": "agents"}, "client": ("192.0.2.1", 1)}) == "agents"
    assert caller_of({"state": {}, "client": ("192.0.2.1", 1)}) == "192.0.2.1"
    assert caller_of({"state": {}, "client": None, "headers": [(b"x-forwarded-for", b"192.0.2.7")]}) == ""


def test_refusals_of_one_caller_wait_for_each_other_and_not_for_those_of_others() -> None:
    async def scenario() -> None:
        pace, ended = RefusalPace(), list[str]()

        async def refuse(caller: str) -> None:
            await pace.wait(caller, asyncio.get_running_loop().time())
            ended.append(caller)

        async with asyncio.TaskGroup() as group:
            for caller in ("flood", "flood", "flood", "other"):
                group.create_task(refuse(caller))
        assert ended.index("other") < 2
        assert pace._last == {}, "callers are forgotten"

    asyncio.run(scenario())


def test_a_refusal_that_came_late_takes_up_a_longer_turn() -> None:
    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        assert await RefusalPace().wait("flood", now - 0.1) >= 0.1
        assert await RefusalPace().wait("flood", now - 1000) <= 2 * HELD_SECONDS

    asyncio.run(scenario())


def test_the_time_that_a_refusal_is_held_back_is_no_part_of_its_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(*_: object) -> float:
        return 1000.0

    monkeypatch.setattr(RefusalPace, "wait", wait)

    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, max_requests=1) as client, engine.held():
            admitted = score(client)
            await engine.entered()
            assert (await score(client)).status_code == 429
            assert await metric(client, 'agentprm_request_duration_seconds_sum{route="/score_step"}') < -900
            engine.gate.set()
            await admitted

    asyncio.run(scenario())
