"""A chat and the steps it stands for are the same trajectory."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import InvalidRequest
from agentprm.messages import to_history, to_proposal
from agentprm.types import State, Step, Trajectory
from agentprm.wire import RankItem, TrajectoryItem
from model_store.text.conversations import action_text, as_state, as_trajectory
from model_store.text.runs import Unrenderable

SYSTEM = {"role": "system", "content": "You are a shopper."}
USER = {"role": "user", "content": "Find a laptop below $900."}
SEARCH = {
    "role": "assistant",
    "content": "I search first.",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"query": "laptop"}'}}],
}
FOUND = {"role": "tool", "content": "12 results"}
HURRY = {"role": "user", "content": "Be quick."}
CLICK = {"role": "assistant", "content": "click [1]"}
SEARCH_TEXT = 'I search first.\n{"arguments": {"query": "laptop"}, "name": "search"}'
TASK = "You are a shopper.\nFind a laptop below $900."


def trajectory(*messages: dict[str, Any]) -> Trajectory:
    return as_trajectory(to_history(TrajectoryItem.model_validate({"messages": messages})))


def state(*messages: dict[str, Any], candidates: list[Any] | None = None) -> tuple[State, list[str]]:
    return proposal({"messages": messages, "candidates": candidates or ["x"]})


def proposal(item: dict[str, Any]) -> tuple[State, list[str]]:
    proposed, candidates = to_proposal(RankItem.model_validate(item))
    return as_state(proposed), list(map(action_text, candidates))


def calling(arguments: str | dict[str, Any], name: str = "f") -> str:
    call = {"function": {"name": name, "arguments": arguments}}
    (step,) = trajectory(USER, {"role": "assistant", "tool_calls": [call]}).steps
    return step.action


def test_a_chat_is_the_trajectory_written_by_hand() -> None:
    steps = (Step("", SEARCH_TEXT), Step("12 results\nBe quick.", "click [1]"), Step("12 results", SEARCH_TEXT))
    chat: list[dict[str, Any]] = [SYSTEM, USER, SEARCH, FOUND, HURRY, CLICK, FOUND, SEARCH]
    assert trajectory(*chat) == Trajectory(TASK, steps)


def test_a_chat_to_rank_is_the_state_written_by_hand() -> None:
    candidates = ["wait", CLICK, SEARCH]
    expected = State(TASK, (Step("", SEARCH_TEXT),), "12 results")
    assert state(SYSTEM, USER, SEARCH, FOUND, candidates=candidates) == (expected, ["wait", "click [1]", SEARCH_TEXT])


def test_both_forms_of_an_item_are_the_same_trajectory() -> None:
    steps = [{"action": SEARCH_TEXT}, {"observation": "12 results", "action": "click [1]"}]
    written = as_trajectory(to_history(TrajectoryItem.model_validate({"task": TASK, "steps": steps})))
    assert written == trajectory(SYSTEM, USER, SEARCH, FOUND, CLICK)


def test_a_state_in_steps_keeps_its_observation() -> None:
    item = {"task": "t", "steps": [{"action": "a"}], "observation": "o", "candidates": ["x"]}
    assert proposal(item) == (State("t", (Step("", "a"),), "o"), ["x"])
    assert proposal({"task": "t", "candidates": ["x"]}) == (State("t"), ["x"])


def test_the_task_ends_with_the_first_user_turn_or_before_the_first_action() -> None:
    assert trajectory(USER, HURRY, CLICK) == Trajectory(USER["content"], (Step("Be quick.", "click [1]"),))
    assert trajectory(SYSTEM, CLICK) == Trajectory(SYSTEM["content"], (Step("", "click [1]"),))


def test_text_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "Find a "}, {"type": "text", "text": "laptop"}]
    assert trajectory({"role": "user", "content": parts}, CLICK).task == "Find a laptop"


def test_white_space_and_key_order_of_arguments_do_not_matter() -> None:
    assert calling('{"b":1,"a":[2, 3]}') == calling('{\n  "a": [2,3],\n  "b": 1\n}')
    assert calling('{"a": 1}') == '{"arguments": {"a": 1}, "name": "f"}'


def test_the_content_of_arguments_does_matter() -> None:
    assert len({calling('{"a": 1}'), calling('{"a": "1"}'), calling('{"a": 2}'), calling('{"a": 1}', name="g")}) == 4


def test_arguments_that_are_no_json_stay_as_written() -> None:
    assert json.loads(calling("{a: 1"))["arguments"] == "{a: 1"


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": 1, "a": 2}',
        '{"a": 2, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '{"a": 1e400}',
        '{"a": -1e400}',
        '{"a": 1e-400}',
        '{"a": 1e-99999999999999999999}',
        '{"a": 0.1000000000000000055}',
        '{"a": 12345678901234567.5}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '"look"',
        "look",
        "1" * 5000,
    ],
)
def test_arguments_that_python_would_change_stay_as_written(arguments: str) -> None:
    assert json.loads(calling(arguments))["arguments"] == arguments


def test_two_spellings_that_python_reads_alike_are_two_actions() -> None:
    alike = ['{"a": 2}', '{"a": 1, "a": 2}', '{"a": 3, "a": 2}', '{"a": 1e400}', '{"a": 1e401}', "look", '"look"']
    alike += ['{"a": 0.1}', '{"a": 0.1000000000000000055}', '{"a": 1}', '{"a": 1.0}', '{"a": true}', '{"a": "1"}']
    assert len({calling(arguments) for arguments in alike}) == len(alike)


def test_arguments_may_be_an_object_and_keep_what_they_hold() -> None:
    assert calling({"b": None, "a": [1, 2.5, "é"]}) == calling('{"b": null, "a": [1, 2.5, "\\u00e9"]}')


def test_text_beyond_ascii_is_not_escaped() -> None:
    assert "é木" in calling('{"q": "\\u00e9木"}')


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.text(max_size=3)
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(keys, json_values, max_size=4), st.sampled_from([None, 0, 3]), st.booleans())
def test_any_spelling_of_the_same_arguments_is_the_same_action(
    arguments: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    reversed_keys = dict(reversed(arguments.items()))
    spelt = json.dumps(reversed_keys, indent=indent, ensure_ascii=ascii_only)
    assert calling(spelt) == calling(json.dumps(arguments))
    assert json.loads(calling(spelt))["arguments"] == arguments


turns = st.lists(st.sampled_from([SYSTEM, USER, SEARCH, FOUND, HURRY, CLICK]), max_size=12)


@given(turns, st.data())
def test_a_chat_cut_after_an_assistant_turn_is_a_prefix(rest: list[dict[str, Any]], data: st.DataObject) -> None:
    chat = [USER, *rest, CLICK]
    ends = [index + 1 for index, turn in enumerate(chat) if turn["role"] == "assistant"]
    cut = trajectory(*chat[: data.draw(st.sampled_from(ends))])
    whole = trajectory(*chat)
    assert len(whole.steps) == len(ends)
    assert cut == Trajectory(whole.task, whole.steps[: len(cut.steps)])


@given(turns)
def test_ranking_an_action_and_taking_it_are_the_same_trajectory(rest: list[dict[str, Any]]) -> None:
    chat = [SYSTEM, USER, *rest, HURRY]
    before, (action,) = state(*chat, candidates=[CLICK])
    assert before.take(action) == trajectory(*chat, CLICK)


def test_null_and_empty_fields_of_a_dumped_message_are_accepted() -> None:
    dumped: dict[str, Any] = {
        "content": "click [1]",
        "role": "assistant",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert trajectory(USER, dumped) == trajectory(USER, CLICK)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([USER, CLICK, HURRY], "last message must be the assistant's"),
        ([SYSTEM, USER], "last message must be the assistant's"),
        ([CLICK], "must hold the task"),
        ([FOUND, CLICK], "must hold the task"),
        ([{"role": "user", "content": ""}, CLICK], "must hold the task"),
        ([USER, {"role": "assistant", "content": ""}], "needs content or tool_calls"),
        ([USER, {"role": "assistant", "tool_calls": []}, HURRY, CLICK], "needs content or tool_calls"),
    ],
)
def test_a_chat_that_is_no_trajectory_is_invalid(messages: list[dict[str, Any]], why: str) -> None:
    with pytest.raises((InvalidRequest, Unrenderable), match=why):
        trajectory(*messages)


@pytest.mark.parametrize(
    ("messages", "candidates", "why"),
    [
        ([USER, CLICK], ["x"], "last message must not be the assistant's"),
        ([FOUND], ["x"], "must hold the task"),
        ([USER], [HURRY], "not a user message"),
        ([USER], ["x", {"role": "assistant"}], "needs content or tool_calls"),
    ],
)
def test_a_chat_that_is_no_state_is_invalid(messages: list[dict[str, Any]], candidates: list[Any], why: str) -> None:
    with pytest.raises((InvalidRequest, Unrenderable), match=why):
        state(*messages, candidates=candidates)
