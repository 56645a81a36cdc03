"""A generative judge: a language model on another server whose prompt asks whether a step is good.

Its checkpoint is a ``prm.json`` alone; docs/judges.md has examples.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from agentprm.types import Trajectory
from model_store.errors import ManifestInvalid

PLACES: Final = ("task", "history", "observation", "action")
_PLACE: Final = re.compile("{(" + "|".join(PLACES) + ")}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    """

    good: tuple[str, ...]
    bad: tuple[str, ...]
    messages: tuple[Turn, ...] = ()
    model: str = ""
    text: str = ""
    after: str = ""
    max_tokens: int = 1
    top_logprobs: int = 5

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
    verdicts = [*judge.good, *judge.bad]
    checks = {
        "messages": (bool(judge.messages) != bool(judge.text), "or text must hold the prompt, and not both"),
        "text": (any("{action}" in text for text in prompts), "or messages must have a place for {action}"),
        "model": (
            bool(judge.model) == bool(judge.messages),
            "must name the model on its server, for messages only",
        ),
        "good": (bool(judge.good) and bool(judge.bad), "and bad must hold a text each"),
        "bad": (len(set(verdicts)) == len(verdicts), "and good must not hold the same text, nor one twice"),
        "max_tokens": (judge.max_tokens > bool(judge.after), "must be positive, and 2 or more to find a text in them"),
        "top_logprobs": (2 <= judge.top_logprobs <= 20, "must be from 2 to 20"),
    }
    for name, (fits, complaint) in checks.items():
        if not fits:
            raise ManifestInvalid(f"prm.json: judge: {name} {complaint}")
    if not all(text and text == text.strip() for text in verdicts):
        raise ManifestInvalid("prm.json: judge: good and bad must hold texts without white space around them")
