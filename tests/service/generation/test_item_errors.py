"""A judge or a policy that fails for one item fails for that item alone, if the request says so."""

import asyncio
from typing import Any

import pytest

from tests.service.echo_app import item, metric
from tests.service.generation.conftest import CHAT, Server, judging
from tests.service.generation.test_policy import acting, acts, rank, sampling

NO_VERDICT: dict[str, Any] = {"written": [["Hm", {"Hm": 0.9, "So": 0.1}]]}
ITEMS = [item("Craft.", "look", id="a"), item("Build.", "go", id="b"), item("Cook.", "stay", id="c")]


def test_an_item_without_a_verdict_is_an_error_and_the_others_have_their_scores(server: Server) -> None:
    async def scenario() -> None:
        async with judging(
            server, CHAT, remote_calls=1
        ) as client:  # one at a time, so that the script's order is theirs
            alone = (await client.post("/score_step", json={"items": [ITEMS[0], ITEMS[2]]})).json()["results"]
            await server.recovers()
            usual: dict[str, Any] = {}
            await server.answers_with(usual, NO_VERDICT)
            reply = await client.post("/score_step", json={"on_error": "item", "items": ITEMS})
            first, failed, last = reply.json()["results"]
            assert [first, last] == alone
            assert failed["id"] == "b"
            assert failed["error"]["code"] == "upstream_failed"
            assert "no verdict" in failed["error"]["message"]
            assert failed["error"]["details"]["item"] == 1
            assert await metric(client, 'agentprm_item_errors_total{code="upstream_failed",model="judge@1"}') == 1

    asyncio.run(scenario())


def test_without_the_field_one_missing_verdict_refuses_the_request(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, CHAT, remote_calls=1) as client:
            await server.answers_with({}, NO_VERDICT)
            assert (await client.post("/score_step", json={"items": ITEMS})).status_code == 502

    asyncio.run(scenario())


def test_a_server_that_is_not_ready_refuses_the_whole_request(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            await server.answers_with(*[{"status": 503, "headers": {"retry-after": "600"}}] * 12)
            reply = await client.post("/score_step", json={"on_error": "item", "items": ITEMS})
            assert reply.status_code == 503

    asyncio.run(scenario())


@pytest.mark.parametrize("n", [1, 3])
def test_an_item_whose_action_cannot_be_sampled_is_an_error_of_its_own(server: Server, n: int) -> None:
    async def scenario() -> None:
        async with acting(server, remote_calls=1) as client:
            await server.answers_with(*acts(*[""] + ["go"] * (2 * n - 1)))
            reply = await rank(client, sampling(n=n), sampling(n=n), on_error="item")
            failed, ranked = reply.json()["results"]
            assert failed["error"]["message"] == "the policy's server sent an empty action"
            assert failed["error"]["details"] == {"item": 0}
            assert [candidate["action"] for candidate in ranked["ranking"]] == ["go"] * n

    asyncio.run(scenario())
