"""Scores of judges in the service, against a server of its own process."""

import asyncio
import math
from itertools import pairwise
from pathlib import Path

import pytest

from model_store.format.judge import Judge
from model_store.format.recipe import ScoreRecipe
from tests.service.echo_app import PATIENCE, item, metric, pass_time, proposal
from tests.service.generation.conftest import CHAT, JUDGES, TEXT, Server, judging, score
from tests.service.generation.text_server import log_odds

PROMISE = ScoreRecipe("judge", "softmax", "verdict").promise
HISTORY = "<obs>saw 0</obs><act>look</act>"
"""The first step of an item as the manifest's template writes it."""


def written_prompt(judge: Judge, action: str, observation: str, history: str = "") -> str:
    prompt = f"Task: Craft.\nSo far: {history}\nNow: {observation}\nAction: {action}\nGood?"
    return prompt if judge.text else f"You judge.\n{prompt}"


@JUDGES
def test_a_score_is_the_log_odds_of_the_verdict_on_the_rendered_prompt(server: Server, judge: Judge) -> None:
    async def scenario() -> None:
        async with judging(server, judge) as client:
            body = {"items": [item("Craft.", "look", "go")]}
            last = (await client.post("/score_step", json=body)).json()["results"][0]
            every = (await client.post("/score_trajectory", json=body)).json()["results"][0]["steps"]
        before = log_odds(written_prompt(judge, "look", "saw 0"))
        raw = log_odds(written_prompt(judge, "go", "saw 1", HISTORY))
        assert math.isclose(last["raw"], raw, abs_tol=1e-9)
        assert math.isclose(last["promise"], PROMISE(raw), abs_tol=1e-9)
        assert math.isclose(last["progress"], PROMISE(raw) - PROMISE(before), abs_tol=1e-9)
        assert every[1] == {name: last[name] for name in every[1]}
        assert every[0]["progress"] is None

    asyncio.run(scenario())


@JUDGES
def test_candidates_are_ranked_by_raw_and_equal_ones_asked_about_once(server: Server, judge: Judge) -> None:
    async def scenario() -> None:
        async with judging(server, judge) as client:
            body = {"items": [proposal("a", "b", "a", "c")]}
            ranking = (await client.post("/rank_actions", json=body)).json()["results"][0]["ranking"]
            asked = (await server.happened())["asked"]
        raws = [log_odds(written_prompt(judge, action, "a table", HISTORY)) for action in "abac"]
        previous = PROMISE(log_odds(written_prompt(judge, "look", "saw 0")))
        assert [candidate["index"] for candidate in ranking] == sorted(range(4), key=lambda index: -raws[index])
        for candidate in ranking:
            assert math.isclose(candidate["raw"], raws[candidate["index"]], abs_tol=1e-9)
            assert math.isclose(candidate["progress"], candidate["promise"] - previous, abs_tol=1e-9)
        assert all(better["raw"] >= worse["raw"] for better, worse in pairwise(ranking))
        assert asked == 1 + 1 + 3  # the warm-up, the step before, three different candidates

    asyncio.run(scenario())


def test_the_server_is_asked_greedily_for_probabilities_under_the_judges_name_and_with_the_key(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sesame\n")

    async def scenario() -> None:
        async with judging(server, CHAT, judge_api_key_file=tmp_path / "key") as client:
            await score(client)
        async with judging(server, TEXT) as client:
            await score(client)
        _, chat, _, text = (await server.happened())["requests"]
        assert (chat["path"], chat["key"]) == ("/v1/chat/completions", "Bearer sesame")
        asked = ("model", "temperature", "logprobs", "top_logprobs", "max_tokens")
        assert [chat["body"][name] for name in asked] == ["judge-8b", 0.0, True, 5, 1]
        assert chat["body"]["messages"][0] == {"role": "system", "content": "You judge."}
        assert (text["path"], text["key"]) == ("/", "Bearer EMPTY")
        parameters = text["body"]["parameters"]
        assert [parameters[name] for name in ("max_new_tokens", "top_n_tokens", "do_sample")] == [1, 5, False]

    asyncio.run(scenario())


def test_what_was_judged_is_not_asked_again(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, score_cache_items=100) as client:
            first = (await score(client, "look", "go")).json()["results"][0]
            again = (await score(client, "look", "go")).json()["results"][0]
            every = await client.post("/score_trajectory", json={"items": [item("Craft.", "look", "go")]})
            asked = (await server.happened())["asked"]
            ranked = await client.post(
                "/rank_actions",
                json={"items": [{**item("Craft.", "look"), "observation": "saw 1", "candidates": ["stay", "go"]}]},
            )
            assert (await server.happened())["asked"] == asked + 1  # about the one that it has not seen
        assert {**first, "usage": None} == {**again, "usage": None}
        assert every.json()["results"][0]["steps"][1]["raw"] == first["raw"]
        assert (asked, again["usage"]["tokens"]) == (3, 0)
        assert first["usage"]["computed"] == first["usage"]["tokens"] > 0
        assert ranked.status_code == 200

    asyncio.run(scenario())


def test_equal_work_in_flight_is_asked_once(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            async with server.held():
                waiting = [asyncio.create_task(score(client)) for _ in range(5)]
                await server.happened(asked=2, running=1)
            replies = [reply.json()["results"][0] for reply in await asyncio.gather(*waiting)]
            assert (await server.happened())["asked"] == 2
        usages = [reply["usage"] for reply in replies]
        assert sum(usage["computed"] for usage in usages) == usages[0]["tokens"]
        assert len({reply["raw"] for reply in replies}) == 1

    asyncio.run(scenario())


def test_a_client_that_leaves_cancels_the_call_and_frees_its_place(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, remote_calls=1) as client:
            async with server.held():
                leaves = asyncio.create_task(score(client, "a"))
                await server.happened(running=1)
                stays = asyncio.create_task(score(client, "b"))
                leaves.cancel()
                await server.happened(left=1, asked=3)
            assert (await stays).status_code == 200

    asyncio.run(scenario())


def test_no_more_calls_run_than_may(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, remote_calls=3) as client:
            async with server.held():
                body = {"items": [proposal(*"abcdefgh")]}
                waiting = asyncio.create_task(client.post("/rank_actions", json=body))
                await server.happened(running=3)
            assert (await waiting).status_code == 200
            happened = await server.happened()
        assert (happened["most"], happened["asked"]) == (3, 1 + 9)

    asyncio.run(scenario())


def test_a_deadline_is_kept_while_the_server_is_silent(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client, server.held(), asyncio.timeout(PATIENCE):
            asked = asyncio.create_task(score(client, deadline_ms=5000))
            await server.happened(running=1)
            pass_time(5.0)
            late = await asked
            assert (late.status_code, late.json()["error"]["details"]) == (504, {"stage": "queue"})
            await server.happened(left=1)

    asyncio.run(scenario())


def test_one_verdict_alone_is_a_bound_and_never_the_middle(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            await server.answers_with({"written": [["Yes", {"Yes": 0.7, "Hm": 0.1}]]})
            (result,) = (await score(client)).json()["results"]
        assert math.isclose(result["raw"], math.log(0.7 / 0.1))

    asyncio.run(scenario())


def test_a_verdict_is_read_after_the_last_of_its_text(server: Server) -> None:
    judge = Judge(("correct",), ("incorrect",), text="{action}", after="\\boxed{", max_tokens=20)
    first = [["\\boxed", {"\\boxed": 1}], ["{", {"{": 1}], ["incorrect", {"incorrect": 1}], ["}.", {"}.": 1}]]
    joined = [["\\boxed", {"\\boxed": 1}], ["{correct", {"{correct": 0.6, "{incorrect": 0.3}], ["}", {"}": 1}]]

    async def scenario() -> None:
        async with judging(server, judge) as client:
            await server.answers_with({"written": [*first, *joined]}, {"written": first * 9})
            assert math.isclose((await score(client)).json()["results"][0]["raw"], math.log(2))
            assert (await server.happened())["requests"][-1]["body"]["parameters"]["max_new_tokens"] == 20
            await server.answers_with({"written": [["Hm", {"Hm": 1}]] * 30})
            await score(client)
            cut = (await score(client)).json()["error"]["message"]
        assert "wrote nothing after which its verdict stands, and was cut after 20 tokens" in cut

    asyncio.run(scenario())


def test_metrics_count_the_calls_of_a_judge_and_models_tell_where_it_is(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            reply = await score(client, "look", "go")
            usage = reply.json()["results"][0]["usage"]
            computed = 'agentprm_tokens_total{model="judge@1",source="computed"}'
            assert await metric(client, computed) == usage["computed"] > 0
            assert await metric(client, 'agentprm_forward_duration_seconds_count{model="judge@1"}') == 2
            assert "queue;dur=" in reply.headers["server-timing"]
            assert (await client.get("/models")).json()["models"][0]["device"] == "remote"
            assert (await client.get("/ready")).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("route", ["/score_step", "/rank_actions"])
def test_a_judge_cuts_no_history_and_says_so(server: Server, route: str) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            body = item() if route == "/score_step" else proposal("go")
            reply = await client.post(route, json={"items": [{**body, "overflow": "drop_oldest"}]})
            assert reply.status_code == 422
            assert reply.json()["error"]["message"].startswith("overflow: a judge's own server decides")

    asyncio.run(scenario())
