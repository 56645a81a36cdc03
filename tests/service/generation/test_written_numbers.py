"""Judges whose verdict is a number that they write."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import UpstreamFailed
from model_store.format.judge import Judge, NumberVerdict, Turn
from model_store.format.recipe import ScoreRecipe
from service.generation.completions import Completion
from service.generation.verdict import raw_score
from service.models.load import LoadedJudge
from tests.service.echo_app import MANIFEST, serving
from tests.service.generation.conftest import Server, score

PRINTS = Judge(
    text="{action}", after="\\boxed_score{", max_tokens=100, number=NumberVerdict(low=-4.0, high=4.0, until="}")
)
OUT_OF_TEN = Judge(text="{action}", after="Overall:", max_tokens=100, number=NumberVerdict(0.0, 10.0, "/10"))
ALONE = Judge(text="{action}", max_tokens=8, number=NumberVerdict(0.0, 10.0))
TEXT_AND_CHAT = pytest.mark.parametrize(
    "judge",
    [PRINTS, replace(PRINTS, text="", messages=(Turn("user", "{action}"),), model="m")],
    ids=["text", "chat"],
)


def read(judge: Judge, text: str, *, complete: bool = True) -> float:
    return raw_score(judge, Completion(text, [], complete, 0))


@pytest.mark.parametrize(
    ("judge", "text", "share"),
    [
        (PRINTS, "3. Final Judgment: \\boxed_score{-3.0}", 0.125),
        (PRINTS, "\\boxed_score{ +3.5 }.", 0.9375),
        (PRINTS, "\\boxed_score{-4}", 0.0),
        (PRINTS, "\\boxed_score{4.0}\nThe step is sound.", 1.0),
        (PRINTS, "At first \\boxed_score{3.5}, but no: \\boxed_score{\n-2.0\n}", 0.25),
        (OUT_OF_TEN, "Clarity: 9/10\nSafety: 3/10\nOverall: 7/10\n", 0.7),
        (OUT_OF_TEN, "Overall: 7.25 /10, since 1 in 100 fails", 0.725),
        (ALONE, "7", 0.7),
        (ALONE, "\n 10 \nAll is well.", 1.0),
    ],
)
def test_the_number_behind_the_last_text_is_its_share_of_the_range(judge: Judge, text: str, share: float) -> None:
    assert read(judge, text) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(
    ("judge", "text", "why"),
    [
        (PRINTS, "I would say -3.0.", "it wrote nothing after which its number stands"),
        (PRINTS, "\\boxed_score{-3.0", "it wrote nothing that ends its number"),
        (PRINTS, "\\boxed_score{-3.0}5", "its number goes on behind its end"),
        (PRINTS, "\\boxed_score{3.0} out of \\boxed_score{}", "no plain decimal number"),
        (PRINTS, "\\boxed_score{-5}", "its number is not from -4 to 4"),
        (OUT_OF_TEN, "Overall: 7/100", "its number goes on behind its end"),
        (OUT_OF_TEN, "Overall: 7", "it wrote nothing that ends its number"),
        (OUT_OF_TEN, "Overall: 10.01/10", "its number is not from 0 to 10"),
        (OUT_OF_TEN, f"Overall: {'9' * 400}/10", "its number is not from 0 to 10"),
        *(
            (OUT_OF_TEN, f"Overall: {written}/10", "no plain decimal number")
            for written in ("", "seven", "6-7", "7 or 8", "7%", "1e1", "0x7", "7,5", "1_0", ".5", "7.", "--7", "+ 7")
        ),
        *(
            (OUT_OF_TEN, f"Overall: {written}/10", "no plain decimal number")
            for written in ("nan", "inf", "\u0667", "\uff17", "\u22127", "7\u200b", "7\x00")
        ),
        (ALONE, "1. The step helps.", "no plain decimal number"),
        (ALONE, "7/10", "no plain decimal number"),
        (ALONE, "", "no plain decimal number"),
    ],
)
def test_anything_else_is_no_verdict_and_never_a_guess(judge: Judge, text: str, why: str) -> None:
    with pytest.raises(UpstreamFailed, match=f"^the judge gave no verdict: .*{why}"):
        read(judge, text)


@pytest.mark.parametrize(("judge", "text"), [(PRINTS, "\\boxed_score{3.0}"), (ALONE, "1")])
def test_a_number_in_a_text_that_was_cut_is_no_verdict(judge: Judge, text: str) -> None:
    with pytest.raises(UpstreamFailed, match="it was cut"):
        read(judge, text, complete=False)


@given(range_and_numbers=st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=4).map(sorted))
@settings(max_examples=50, deadline=None)
def test_a_higher_number_is_never_worse_and_stays_in_0_to_1(range_and_numbers: list[int]) -> None:
    low, worse, better, high = range_and_numbers
    judge = replace(ALONE, number=NumberVerdict(low / 10, high / 10 + 1))
    assert 0 <= read(judge, str(worse / 10)) <= read(judge, str(better / 10)) <= 1


def serving_a_number(server: Server, judge: Judge, **settings: Any) -> Any:
    recipe = ScoreRecipe("judge", "identity", "verdict")
    manifest = replace(MANIFEST, name="judge", score=recipe, judge=judge, digest="sha256:judge")
    return serving(LoadedJudge(manifest), judge_url=server.url, **settings)


@TEXT_AND_CHAT
def test_promise_is_the_share_itself_and_no_sigmoid_of_it(server: Server, judge: Judge) -> None:
    async def scenario() -> None:
        async with serving_a_number(server, judge) as client:
            await server.answers_with(written("\\boxed_score{0}"), written("Good. \\boxed_score{-3.0}"))
            (result,) = (await score(client, "look", "go")).json()["results"]
            asked = (await server.happened())["requests"]
        raws = {result["raw"], result["raw"] - result["progress"]}
        assert result["promise"] == result["raw"]
        assert raws == {0.5, 0.125}
        assert not any(word in str(request) for request in asked for word in ("logprobs", "top_n_tokens"))

    asyncio.run(scenario())


@TEXT_AND_CHAT
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"written": [["PRIVATE", {"PRIVATE": 1}]]}, "nothing after which its number stands"),
        ({"written": [["\\boxed_score{PRIVATE}", {"\\boxed_score{PRIVATE}": 1}]]}, "no plain decimal number"),
        ({"written": [["\\boxed_score{99}", {"\\boxed_score{99}": 1}]]}, "is not from -4 to 4"),
        ({"written": [["\\boxed_score{3}", {"\\boxed_score{3}": 1}]], "finish": "length"}, "it was cut"),
        ({"written": [["\\boxed_score{3}", {"\\boxed_score{3}": 1}]], "finish": "content_filter"}, "it was cut"),
        ({"written": []}, "nothing after which its number stands"),
    ],
)
def test_one_unread_number_fails_its_request_and_keeps_nothing(
    server: Server, judge: Judge, answer: dict[str, Any], why: str
) -> None:
    async def scenario() -> None:
        async with serving_a_number(server, judge, score_cache_items=100) as client:
            await server.answers_with(answer)
            failed = await score(client)
            await server.answers_with(written("\\boxed_score{2}"))
            again = await score(client)
        assert (failed.status_code, failed.json()["error"]["code"]) == (502, "upstream_failed")
        assert why in failed.json()["error"]["message"]
        assert not any(word in failed.text for word in ("PRIVATE", "99", "\\n"))
        assert (again.status_code, again.json()["results"][0]["promise"]) == (200, 0.75)

    asyncio.run(scenario())


def test_candidates_are_ranked_by_their_numbers_each_of_which_is_asked_for_once(server: Server) -> None:
    async def scenario() -> None:
        async with serving_a_number(server, PRINTS, remote_calls=1) as client:
            await server.answers_with(*(written(f"\\boxed_score{{{number}}}") for number in (1, -2, 3)))
            items = [{"task": "Craft.", "candidates": ["a", "b", "c", "b"]}]
            reply = (await client.post("/rank_actions", json={"items": items})).json()
        ranking = [(action["index"], action["promise"]) for action in reply["results"][0]["ranking"]]
        assert ranking == [(2, 0.875), (0, 0.625), (1, 0.25), (3, 0.25)]

    asyncio.run(scenario())


def written(text: str) -> dict[str, Any]:
    """The script of an answer that holds ``text``, in one token."""
    return {"written": [[text, {text: 1.0}]]}
