"""Arguments of the wrong kind: a sentence says what is expected, and nothing is sent."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentprm import InvalidRequest, RankItem, Sample, State, Step, Trajectory, TrajectoryItem, wire
from tests.agentprm.scripted import STEP, USAGE, ScriptedService, reply

STATE = State("craft a torch", (), "a forest")
GOOD = STATE.take("get 1 stick")
USER, ASSISTANT = {"role": "user", "content": "craft a torch"}, {"role": "assistant", "content": "get 1 stick"}
CHAT = [USER, ASSISTANT]
ITEM = TrajectoryItem.model_validate({"messages": CHAT})
RANKED = {"id": None, "ranking": [{"index": 0, "rank": 0, **{k: STEP[k] for k in ("promise", "progress", "raw")}}]}


class Fancy(str):
    """A str as numpy has it."""

    __slots__ = ()


async def asynchronous() -> AsyncIterator[Trajectory]:
    yield GOOD


def with_steps(steps: Any) -> Trajectory:
    return Trajectory("craft a torch", steps)


@pytest.mark.parametrize(
    ("trajectory", "expected"),
    [
        (STATE, r"score state\.take\(action\), or rank candidates"),
        (None, "items.0 must be a Trajectory, a chat .* not None"),
        ("craft a torch", "items.0 must be a Trajectory, a chat .* not of type str"),
        (b"craft a torch", "not of type bytes"),
        (Path("trajectory.json"), "items.0 must be a Trajectory, a chat .*Path"),
        (7, "not of type int"),
        ({"task": "t", "steps": []}, "items.0 must be a Trajectory, .* or a TrajectoryItem, not of type dict"),
        (USER, "items.0.messages must be a list of messages, not one message"),
        (wire.Message.model_validate(USER), "items.0.messages must be a list of messages, not one message"),
        (RankItem.model_validate({"task": "t", "candidates": ["x"]}), "items.0 must be a Trajectory"),
        (["craft a torch", "get 1 stick"], "items.0.messages.0 must be a message: a dict with role and content"),
        ([("user", "craft a torch")], "items.0.messages.0 must be a message"),
        ([[USER, ASSISTANT]], "items.0.messages.0 must be a message"),
        ([Step("", "get 1 stick")], r"make a Trajectory\(task, steps\)"),
        (
            with_steps((("", "get 1 stick"),)),
            r"items.0.steps.0 must be a Step\(observation, action\), not of type tuple",
        ),
        (with_steps([Step("", "x"), {"observation": "", "action": "x"}]), "items.0.steps.1 must be a Step.* type dict"),
        (with_steps(["get 1 stick"]), "items.0.steps.0 must be a Step.* type str"),
        (with_steps("get 1 stick"), "items.0.steps must be a tuple of Step.* type str"),
        (with_steps(Step("", "get 1 stick")), "items.0.steps must be a tuple of Step.* type Step"),
        (with_steps(None), "items.0.steps must be a tuple of Step.* None"),
        (Trajectory(None, GOOD.steps), "items.0.task must be a text, not None"),  # type: ignore[arg-type]
        (Trajectory("t", (Step(None, "x"),)), "items.0.steps.0.observation: .*valid string"),  # type: ignore[arg-type]
        (Trajectory("t", (Step("", Path("x")),)), "items.0.steps.0.action: .*valid string"),  # type: ignore[arg-type]
    ],
)
def test_score_says_what_a_trajectory_is(service: ScriptedService, trajectory: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        service.call("score", trajectory)
    assert service.requests == []


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (GOOD, "items must be a list, each item a Trajectory.* not of type Trajectory"),
        (STATE, "items must be a list, .* type State"),
        (ITEM, "items must be a list, .* type TrajectoryItem"),
        (CHAT, "not one message: score takes a chat, score_step several"),
        (USER, "items must be a list, .* type dict"),
        ("craft a torch", "items must be a list, .* type str"),
        (b"craft a torch", "items must be a list, .* type bytes"),
        (None, "items must be a list, .* not None"),
        (asynchronous(), "items must be a list, .* async_generator"),
        ([GOOD, STATE], r"items.1: .*score state\.take\(action\)"),
        ([], "items: List should have at least 1 item"),
    ],
)
@pytest.mark.parametrize("method", ["score_step", "score_trajectory"])
def test_score_step_says_what_items_are(service: ScriptedService, method: str, items: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        service.call(method, items)
    assert service.requests == []


@pytest.mark.parametrize(
    ("state", "candidates", "expected"),
    [
        (STATE, "look", "items.0.candidates must be a list of actions or a Sample, not of type str"),
        (STATE, b"look", "items.0.candidates must be a list of actions .* bytes"),
        (STATE, None, "items.0.candidates must be a list of actions .* None"),
        (STATE, ASSISTANT, "items.0.candidates must be a list of actions .* dict"),
        (STATE, 4, "items.0.candidates must be a list of actions .* int"),
        (STATE, {"look", "wait"}, "items.0.candidates must be a list, not a set"),
        (STATE, [], "items.0.candidates: List should have at least 1 item"),
        (STATE, [None], "items.0.candidates.0 must be a text or a message, not None"),
        (STATE, ["look", b"wait"], "items.0.candidates.1 must be a text or a message, not of type bytes"),
        (STATE, [Path("look")], "items.0.candidates.0 must be a text or a message"),
        (STATE, [Sample(n=1)], "items.0.candidates.0 must be a text or a message, not of type Sample"),
        ({"messages": [USER], "candidates": ["wait"]}, ["look"], "items.0.state must hold no candidates"),
        ({"messages": USER}, ["look"], "not one message"),
        (STATE, [["look"]], "items.0.candidates.0 must be a text or a message, not of type list"),
        (STATE, [GOOD], "items.0.candidates.0 must be a text or a message, not of type Trajectory"),
        (GOOD, ["look"], r"ranked in a State\(task, steps, observation\), not in a Trajectory"),
        ("craft a torch", ["look"], "items.0.state must be a State or a chat"),
        (None, ["look"], "items.0.state must be a State or a chat"),
        (USER, ["look"], "not one message"),
        (State("t", (("", "x"),)), ["look"], "items.0.steps.0 must be a Step"),  # type: ignore[arg-type]
        (State("t", (), None), ["look"], None),  # type: ignore[arg-type]
    ],
)
def test_rank_says_what_a_state_and_its_candidates_are(
    service: ScriptedService, state: Any, candidates: Any, expected: str | None
) -> None:
    if expected is None:
        service.answers = [reply({**RANKED, "usage": USAGE})]
        assert service.call("rank", state, candidates).ranking[0].index == 0
        return
    with pytest.raises(InvalidRequest, match=expected):
        service.call("rank", state, candidates)
    assert service.requests == []


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((STATE, ["look"]), r"items.0 must be a pair \(state, candidates\) or a RankItem, not of type State"),
        ([STATE, ["look"]], "items.0 must be a pair .* State"),
        ([STATE], "items.0 must be a pair .* State"),
        ([(STATE, ["look"], 8)], "items.0 must be a pair .* tuple"),
        ([(STATE,)], "items.0 must be a pair .* tuple"),
        (["ab"], "items.0 must be a pair .* str"),
        ([CHAT], "items.0.candidates must be a list of actions|not one message"),
        ({"state": STATE}, "items must be a list, each item a pair"),
        (RankItem.model_validate({"task": "t", "candidates": ["x"]}), "items must be a list, each item a pair"),
        ([ITEM], "items.0 must be a pair .* TrajectoryItem"),
        (None, "items must be a list, each item a pair"),
        ([(STATE, Sample(n=1)), None], "items.1 must be a pair .* None"),
    ],
)
def test_rank_actions_says_how_its_items_nest(service: ScriptedService, items: Any, expected: str) -> None:
    with pytest.raises(InvalidRequest, match=expected):
        service.call("rank_actions", items)
    assert service.requests == []


@dataclass
class Spoken:
    """A message as a library of the caller's may hold it."""

    role: str
    content: str
    tool_calls: None = None


def test_a_chat_may_be_of_objects_and_come_with_its_tools(service: ScriptedService) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    turns = [Spoken("user", "craft a torch"), wire.Message(role="assistant", content="get 1 stick")]
    service.answers = [reply(STEP, STEP), reply({**RANKED, "usage": USAGE})]
    service.call("score_step", [{"messages": turns, "tools": [tool], "reasoning": "drop"}, turns])
    service.call("rank", {"messages": turns[:1], "tools": [tool]}, [Spoken("assistant", "look")])
    (row, chat), (ranked,) = (json.loads(request.content)["items"] for request in service.requests)
    assert row["messages"] == chat["messages"] == CHAT
    assert (row["tools"], row["reasoning"], ranked["tools"]) == ([tool], "drop", [tool])
    assert ranked["candidates"] == [{"role": "assistant", "content": "look"}]


def test_iterators_and_other_kinds_of_strings_and_mappings_are_taken(service: ScriptedService) -> None:
    def steps() -> Iterator[Step]:
        yield Step(Fancy("a forest"), Fancy("get 1 stick"))

    service.answers = [reply(STEP, STEP, STEP)]
    generated = Trajectory("craft a torch", steps())  # type: ignore[arg-type]
    service.call("score_step", iter([generated, iter(CHAT), tuple(CHAT)]))
    service.answers = [reply({**RANKED, "usage": USAGE})]
    service.call("rank", STATE, iter([Fancy("look")]))
    assert b'"action":"get 1 stick"' in service.requests[0].content
    assert b'"candidates":["look"]' in service.requests[1].content


@pytest.mark.parametrize(
    "request_id", ["r\u00f6d", "a\r\nx-evil: 1", "a\nb", "a b", "", "x" * 129, "\x7f", b"a", 7, UUID(int=1)]
)
def test_a_request_id_that_the_log_would_not_show_is_refused_before_anything_is_sent(
    service: ScriptedService, request_id: Any
) -> None:
    with pytest.raises(InvalidRequest, match="request_id must be a text of 1 to 128 printable ASCII characters"):
        service.call("score", GOOD, request_id=request_id)
    assert service.requests == []


@pytest.mark.parametrize("deadline_ms", [float("nan"), "250", [250], 1j])
def test_a_deadline_that_is_no_number_is_refused(service: ScriptedService, deadline_ms: Any) -> None:
    with pytest.raises(InvalidRequest, match="deadline_ms must be a number of milliseconds"):
        service.call("score", GOOD, deadline_ms=deadline_ms)
    assert service.requests == []
