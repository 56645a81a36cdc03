"""Tool results in the order of the calls that they answer.

Results of parallel calls arrive in any order. A template shows turns in the order of the chat, and often without their
ids: the same facts would have several scores, and results under swapped ids the same one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from agentprm.errors import InvalidRequest
from agentprm.types import Message, ToolCall

_LAST: Final = float("inf")
"""Rank of a result that answers no call: a text-only agent's observation in a tool turn."""


def in_call_order(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Orders each run of tool turns by the calls that they answer; every other turn stays in its place.

    A result without an id answers the only call of the assistant turn before it. Where that turn made several calls
    and none has an id, the results answer them one by one.

    Raises:
        InvalidRequest: a result has an id of no call or of a call that has a result, or lacks one where it is needed.
    """
    calls = _Calls()
    ordered: list[Message] = []
    run: list[tuple[float, Message]] = []
    for at, message in enumerate(messages):
        if message.role == "tool":
            run.append((calls.rank_of_result(f"messages.{at}", message.tool_call_id), message))
            continue
        ordered += _sorted(run)
        run = []
        if message.role == "assistant":
            calls.begin_turn(f"messages.{at}", message.tool_calls)
        ordered.append(message)
    return (*ordered, *_sorted(run))


def _sorted(run: Iterable[tuple[float, Message]]) -> list[Message]:
    return [message for _, message in sorted(run, key=lambda ranked: ranked[0])]


class _Calls:
    """The calls of a chat so far. A call's rank is its number in the chat."""

    def __init__(self) -> None:
        self._made = 0  # calls before the last assistant turn
        self._turn: Sequence[ToolCall] = ()  # calls of that turn
        self._open: dict[str, int] = {}  # id -> rank of the latest call with it
        self._answered: set[int] = set()
        self._results_without_id = 0  # since that turn

    def begin_turn(self, place: str, calls: Sequence[ToolCall]) -> None:
        self._made += len(self._turn)
        self._turn = calls
        self._results_without_id = 0
        for number, call in enumerate(calls):
            if call.id is None:
                continue
            if self._open.get(call.id, -1) >= self._made:
                raise InvalidRequest(f"{place}.tool_calls.{number}: another call of this message has the same id")
            self._open[call.id] = self._made + number

    def rank_of_result(self, place: str, call_id: str | None) -> float:
        if call_id is None:
            return self._rank_without_id(place)
        if call_id not in self._open:
            self._adopt(place, call_id)
        rank = self._open[call_id]
        if rank in self._answered:
            raise InvalidRequest(f"{place}: the call with this tool_call_id has a result already")
        self._answered.add(rank)
        return rank

    def _adopt(self, place: str, call_id: str) -> None:
        """Gives a result's id to the only call it can answer: that of a client that writes ids into results alone."""
        if len(self._turn) != 1 or self._turn[0].id is not None:
            raise InvalidRequest(f"{place}: tool_call_id is the id of no call before it")
        self._turn = [replace(self._turn[0], id=call_id)]
        self._open[call_id] = self._made

    def _rank_without_id(self, place: str) -> float:
        calls = self._turn
        if len(calls) < 2:
            self._answered.update(range(self._made, self._made + len(calls)))
            return self._made if calls else _LAST
        if any(call.id is not None for call in calls):
            raise InvalidRequest(f"{place}: a tool message needs tool_call_id where several calls were made before it")
        self._results_without_id += 1
        if self._results_without_id > len(calls):
            raise InvalidRequest(f"{place}: more tool messages without tool_call_id than calls before them")
        return self._made + self._results_without_id - 1
