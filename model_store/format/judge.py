"""A generative judge: a language model elsewhere that is asked, in text, whether a step is good.

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
    """What is asked, and where the verdict stands in what is generated.

    Either ``messages``, for ``/v1/chat/completions`` under the name ``model``, or ``text``, a prompt as the model reads
    it, for the generate route of a TGI server. ``{task}``, ``{history}``, ``{observation}`` and ``{action}`` in them
    stand for the step that is judged and, written as the manifest's template says, for the steps before it; any other
    brace is itself.

    The verdict is the first generated token that is not white space: after the last ``after`` of what was generated,
    or of all where ``after`` is empty. ``good`` and ``bad`` are its texts; white space around a token does not count,
    and what several spellings have is summed. ``top_logprobs``: how many of the likeliest tokens the server tells.
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
        """The messages for the last step of a trajectory; ``history`` are the steps before it as one text."""
        return [{"role": turn.role, "content": _filled(turn.content, step, history)} for turn in self.messages]

    def prompt(self, step: Trajectory, history: str) -> str:
        """The same as one text."""
        return _filled(self.text, step, history)


def _filled(template: str, step: Trajectory, history: str) -> str:
    """Every place at once: what is put into one may look like another."""
    last = step.steps[-1]
    texts = {"task": step.task, "history": history, "observation": last.observation, "action": last.action}
    return _PLACE.sub(lambda place: texts[place[1]], template)


def check_judge(judge: Judge) -> None:
    """Raises ManifestInvalid for a judge whose fields do not fit each other."""
    written = [judge.text, *(turn.content for turn in judge.messages)]
    verdicts = [*judge.good, *judge.bad]
    right = {
        "messages": (bool(judge.messages) != bool(judge.text), "or text must hold the prompt, and not both"),
        "text": (any("{action}" in text for text in written), "or messages must have a place for {action}"),
        "model": (
            bool(judge.model) == bool(judge.messages),
            "must name the model on its server, for messages only",
        ),
        "good": (bool(judge.good) and bool(judge.bad), "and bad must hold a text each"),
        "bad": (len(set(verdicts)) == len(verdicts), "and good must not hold the same text, nor one twice"),
        "max_tokens": (judge.max_tokens > bool(judge.after), "must be positive, and 2 or more to find a text in them"),
        "top_logprobs": (2 <= judge.top_logprobs <= 20, "must be from 2 to 20"),
    }
    for name, (fits, complaint) in right.items():
        if not fits:
            raise ManifestInvalid(f"prm.json: judge: {name} {complaint}")
    if not all(text and text == text.strip() for text in verdicts):
        raise ManifestInvalid("prm.json: judge: good and bad must hold texts without white space around them")
