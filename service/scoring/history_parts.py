"""A history in the parts that may go: whole steps, and the middle of observations.

A position is the number of observations up to the step that is read. The last observation of a state has no action yet.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Final, Protocol

from agentprm.types import Conversation, Message, State, Step, Trajectory

History = Trajectory | State | Conversation

MARK_CHARS: Final = 64
"""More characters than the mark of a cut has. A text that is longer than its cap by no more stays whole."""


class Parts(Protocol):
    """The head of a history, which always stays, and after it observations and actions in turns, each as texts."""

    head: Sequence[str]
    observations: Sequence[Sequence[str]]
    actions: Sequence[Sequence[str]]

    @property
    def gone_observation(self) -> int:
        """The observation that goes with an action: that before it (0), or that after it (1)."""
        ...

    def most_dropped(self, position: int) -> int:
        """Returns the most steps that may go; the observation at the position stays."""
        ...

    def dropped(self, position: int, steps: int) -> History:
        """Returns the history up to a position, without its first ``steps``."""
        ...

    def shortened(self, position: int, cap: int | None, last_cap: int | None) -> History:
        """Returns the history up to a position, whose texts of observations keep ``cap`` characters; None: all.

        The observation at the position keeps ``last_cap``.
        """
        ...


class StepParts:
    """Parts of a task and its steps. The head is the task; an observation goes with the action after it."""

    gone_observation: Final = 0

    def __init__(self, history: Trajectory | State) -> None:
        self._history = history
        self.head = [history.task]
        self.observations = [[step.observation] for step in history.steps]
        self.actions = [[step.action] for step in history.steps]
        if isinstance(history, State):
            self.observations.append([history.observation])

    def most_dropped(self, position: int) -> int:
        return position - 1

    def dropped(self, position: int, steps: int) -> Trajectory | State:
        return replace(self._history, steps=self._history.steps[steps:position])

    def shortened(self, position: int, cap: int | None, last_cap: int | None) -> Trajectory | State:
        steps = self._history.steps[:position]
        caps = [cap if at < position - 1 else last_cap for at in range(len(steps))]
        short = tuple(Step(shorten(step.observation, cap), step.action) for step, cap in zip(steps, caps, strict=True))
        if isinstance(self._history, State):
            return replace(self._history, steps=short, observation=shorten(self._history.observation, last_cap))
        return replace(self._history, steps=short)


class ChatParts:
    """Parts of a chat. The head is everything before the first assistant turn.

    An assistant turn goes together with the turns that follow it, so that no tool turn loses its call and turns still
    alternate. The assistant turn before the observation at the position stays.
    """

    gone_observation: Final = 1

    def __init__(self, chat: Conversation) -> None:
        self._chat = chat
        turns = chat.messages
        places = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
        begin = places[0] if places else len(turns)
        self._begins = [*places, len(turns)]
        self.head = [*chat.tools, *chain.from_iterable(map(texts_of, turns[:begin]))]
        self.actions = [texts_of(turns[place]) for place in places]
        observed = [turns[place + 1 : after] for place, after in pairwise(self._begins)]
        if observed and not observed[-1]:
            observed.pop()
        self.observations = [[], *([text for turn in turns for text in texts_of(turn)] for turns in observed)]

    def most_dropped(self, position: int) -> int:
        return max(0, position - 2)

    def dropped(self, position: int, steps: int) -> Conversation:
        turns = self._chat.messages
        kept = turns[self._begins[steps] : self._end(position)]
        return replace(self._chat, messages=(*turns[: self._begins[0]], *kept))

    def shortened(self, position: int, cap: int | None, last_cap: int | None) -> Conversation:
        turns, begin, end = self._chat.messages, self._begins[0], self._end(position)
        last = self._begins[position - 2] if position > 1 else begin
        caps = [cap if place < last else last_cap for place in range(begin, end)]
        short = [
            turn if turn.role == "assistant" else _shortened_turn(turn, cap)
            for turn, cap in zip(turns[begin:end], caps, strict=True)
        ]
        return replace(self._chat, messages=(*turns[:begin], *short))

    def _end(self, position: int) -> int:
        """The number of turns up to the action at a position, or up to the end of a chat that has none there."""
        return self._begins[position - 1] + 1 if position <= len(self.actions) else len(self._chat.messages)


def parts_of(history: History) -> Parts:
    return ChatParts(history) if isinstance(history, Conversation) else StepParts(history)


def texts_of(part: str | Message) -> list[str]:
    """Returns every text of a turn or an action."""
    if isinstance(part, str):
        return [part]
    calls = chain.from_iterable((call.name, call.arguments) for call in part.tool_calls)
    return [text for text in (part.reasoning, part.text, *calls) if text]


def shorten(text: str, cap: int | None) -> str:
    """Returns a text without its middle, half of ``cap`` characters on each side; None: the whole text."""
    if cap is None or len(text) <= cap + MARK_CHARS:
        return text
    half = cap // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _shortened_turn(turn: Message, cap: int | None) -> Message:
    if isinstance(turn.content, tuple):
        return replace(turn, content=tuple(shorten(text, cap) for text in turn.content))
    return replace(turn, content=shorten(turn.content, cap)) if turn.content else turn
