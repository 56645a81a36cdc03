"""A generative judge: a language model on another server whose prompt asks whether a step is good.

Its checkpoint is a ``prm.json`` alone; docs/judges.md has examples.
"""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from agentprm.types import Trajectory
from model_store.errors import ManifestInvalid
from model_store.format.validation import NOT_NULL

PLACES: Final = ("task", "history", "observation", "action")
_PLACE: Final = re.compile("{(" + "|".join(PLACES) + ")}")
_OF_A_NUMBER: Final = tuple("+-.0123456789")
_TOP_LOGPROBS: Final = 5
_Checks = dict[str, tuple[bool, str]]
"""For each field, whether it fits, and the complaint if it does not."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class NumberVerdict:
    """A verdict that is written as a number from ``low``, the worst, to ``high``.

    The number ends before the text ``until``; without one, it ends its line.
    """

    low: float
    high: float
    until: str = ""


@dataclass(frozen=True, slots=True)
class Judge:
    """The prompt of a judge, and where its verdict stands in the generated text.

    The prompt is either ``messages``, for ``/v1/chat/completions`` under the name ``model``, or ``text``, as the model
    reads it, for the generate route of a TGI server. ``{task}``, ``{observation}`` and ``{action}`` in it stand for the
    step that is judged, ``{history}`` for the steps before it as the manifest's template writes them. Others stay.

    The verdict is the first generated token that is not white space. With ``after`` it is the first one behind the last
    occurrence of that text. ``good`` and ``bad`` are the texts of a verdict: white space around a token does not count,
    and the probabilities of several spellings are summed. ``top_logprobs`` is how many of the likeliest tokens the
    server returns.

    With ``number`` the verdict is a number at that place instead, and no probabilities are read.
    """

    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    messages: tuple[Turn, ...] = ()
    model: str = ""
    text: str = ""
    after: str = ""
    max_tokens: int = 1
    top_logprobs: int = _TOP_LOGPROBS
    number: Annotated[NumberVerdict | None, NOT_NULL] = None

    def chat(self, step: Trajectory, history: str) -> list[dict[str, str]]:
        """The messages that ask about a trajectory's last step; ``history`` is the text of the steps before it."""
        return [{"role": turn.role, "content": _filled(turn.content, step, history)} for turn in self.messages]

    def prompt(self, step: Trajectory, history: str) -> str:
        """The prompt that asks about the last step, as one text."""
        return _filled(self.text, step, history)


def _filled(template: str, step: Trajectory, history: str) -> str:
    """Fills all places at once: a text that is put into a place may look like another place."""
    last = step.steps[-1]
    texts = {"task": step.task, "history": history, "observation": last.observation, "action": last.action}
    return _PLACE.sub(lambda place: texts[place[1]], template)


def check_judge(judge: Judge) -> None:
    """Raises ManifestInvalid for a judge whose fields do not fit each other."""
    prompts = [judge.text, *(turn.content for turn in judge.messages)]
    checks = {
        "messages": (bool(judge.messages) != bool(judge.text), "or text must hold the prompt, and not both"),
        "text": (any("{action}" in text for text in prompts), "or messages must have a place for {action}"),
        "model": (
            bool(judge.model) == bool(judge.messages),
            "must name the model on its server, for messages only",
        ),
        **(_token_checks(judge) if judge.number is None else _number_checks(judge, judge.number)),
    }
    for name, (fits, complaint) in checks.items():
        if not fits:
            raise ManifestInvalid(f"prm.json: judge: {name} {complaint}")
    if not all(text and text == text.strip() for text in (*judge.good, *judge.bad)):
        raise ManifestInvalid("prm.json: judge: good and bad must hold texts without white space around them")


def _token_checks(judge: Judge) -> _Checks:
    verdicts = [*judge.good, *judge.bad]
    return {
        "good": (
            bool(judge.good) and bool(judge.bad),
            "and bad must hold a text each, or number the range of a number",
        ),
        "bad": (len(set(verdicts)) == len(verdicts), "and good must not hold the same text, nor one twice"),
        "max_tokens": (judge.max_tokens > bool(judge.after), "must be positive, and 2 or more to find a text in them"),
        "top_logprobs": (2 <= judge.top_logprobs <= 20, "must be from 2 to 20"),
    }


def _number_checks(judge: Judge, number: NumberVerdict) -> _Checks:
    width = number.high - number.low
    return {
        "number": (width > 0 and math.isfinite(width), "must have a low under its high, both finite"),
        "good": (not judge.good and not judge.bad, "and bad are texts of tokens; a number has none"),
        "top_logprobs": (judge.top_logprobs == _TOP_LOGPROBS, "is of tokens; a number is read without probabilities"),
        "max_tokens": (judge.max_tokens > 1, "must be 2 or more to hold a number and its end"),
        "after": (
            not judge.after.endswith(_OF_A_NUMBER),
            "must not end in a digit, sign or point, which would be part of the number",
        ),
        "number: until": (
            not number.until.startswith(_OF_A_NUMBER),
            "must not begin with a digit, sign or point, or a number would end too soon",
        ),
    }
