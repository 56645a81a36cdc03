"""Parallel tool results belong to their calls, in whatever order they arrive."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import InvalidRequest
from agentprm.tool_results import in_call_order
from agentprm.types import Message, ToolCall

USER = Message("user", "Who has more?")
SAYS = Message("assistant", "Bob has more.")


def calls(*ids: str | None) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall("balance", "{}", call_id) for call_id in ids))


def result(content: str, call_id: str | None = None) -> Message:
    return Message("tool", content, tool_call_id=call_id)


def contents(*messages: Message) -> list[Any]:
    return [message.content for message in in_call_order(messages) if message.role == "tool"]


def test_results_stand_in_the_order_of_their_calls_however_they_arrive() -> None:
    results = [result("10", "a"), result("20", "b"), result("30", "c")]
    for arrived in permutations(results):
        assert contents(USER, calls("a", "b", "c"), *arrived, SAYS) == ["10", "20", "30"]


def test_swapped_ids_are_other_facts() -> None:
    assert contents(calls("a", "b"), result("10", "b"), result("20", "a")) == ["20", "10"]


def test_each_run_is_ordered_by_itself() -> None:
    messages = (calls("a", "b"), result("1", "b"), USER, result("2", "a"), SAYS)
    assert in_call_order(messages) == messages


def test_ids_may_come_again_in_a_later_turn() -> None:
    turn = (calls("call_0", "call_1"), result("2", "call_1"), result("1", "call_0"))
    assert contents(*turn, *turn) == ["1", "2", "1", "2"]


def test_parallel_calls_may_be_split_over_turns() -> None:
    assert contents(calls("a"), calls("b"), result("2", "b"), result("1", "a")) == ["1", "2"]


@pytest.mark.parametrize(
    "messages",
    [
        (calls("a", "b"), result("1", "b"), SAYS),
        (calls("a"), result("1"), SAYS),
        (calls("a"), result("1"), result("2"), SAYS),
        (calls(None), result("1", "a"), SAYS),
        (calls(None, None), result("1"), result("2"), SAYS),
        (calls(None, None), result("1"), SAYS),
        (SAYS, result("1"), SAYS),
        (result("1"), SAYS),
        (calls("a", "b"), SAYS),
    ],
    ids=lambda messages: " ".join(f"{message.role}" for message in messages),
)
def test_what_leaves_no_doubt_is_taken_as_it_stands(messages: tuple[Message, ...]) -> None:
    assert in_call_order((USER, *messages)) == (USER, *messages)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ((calls("a"), result("1", "z")), "messages.1: tool_call_id is the id of no call before it"),
        ((SAYS, result("1", "z")), "messages.1: tool_call_id is the id of no call before it"),
        ((result("1", "a"), calls("a")), "messages.0: tool_call_id is the id of no call before it"),
        ((calls(None, None), result("1", "z")), "messages.1: tool_call_id is the id of no call before it"),
        ((calls(None), result("1", "y"), result("2", "z")), "messages.2: tool_call_id is the id of no call before it"),
        ((calls("a"), result("1", "a"), result("2", "a")), "messages.2: the call with this tool_call_id has a result"),
        ((calls("a"), result("1"), result("2", "a")), "messages.2: the call with this tool_call_id has a result"),
        ((calls("a", "b"), result("1")), "messages.1: a tool message needs tool_call_id where several calls"),
        ((calls("a", None), result("1")), "messages.1: a tool message needs tool_call_id where several calls"),
        ((calls(None, None), *[result("1")] * 3), "messages.3: more tool messages without tool_call_id than calls"),
        ((USER, calls("a", "a")), "messages.1.tool_calls.1: another call of this message has the same id"),
    ],
)
def test_a_result_of_no_known_call_is_refused_with_its_place(messages: tuple[Message, ...], why: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        in_call_order(messages)
    assert caught.value.message.startswith(why)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_any_order_of_arrival_is_the_same_chat(turns: list[int], data: st.DataObject) -> None:
    arrived: list[Message] = []
    sorted_: list[Message] = []
    for turn, count in enumerate(turns):
        ids = [f"{turn}.{number}" for number in range(count)]
        results = [result(f"result {call_id}", call_id) for call_id in ids]
        arrived += [calls(*ids), *data.draw(st.permutations(results))]
        sorted_ += [calls(*ids), *results]
    assert in_call_order(arrived) == tuple(sorted_)
    assert in_call_order(sorted_) == tuple(sorted_)
