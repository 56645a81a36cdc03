"""Tries a chat template on chats, in a process of its own that cannot fill the machine.

A template is a program that a stranger wrote. The sandbox keeps it from everything but time and memory.
"""

import json
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple

from model_store.importers.limits import SPARE_BYTES, limit_process
from model_store.text.jinja import JinjaTemplate
from model_store.text.runs import Unrenderable

TURNS: Final = 6
CPU_SECONDS: Final = 20
MAX_CHARS: Final = 1_000_000
_THINKING: Final = "<think>so</think>then"
_MARK: Final = "crossword"
_VALUE: Final = "seven across"
_PARTS: Final = [{"type": "text", "text": _MARK}]
_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {_MARK: {"type": "string"}}, "required": [_MARK]},
    },
}


class ChatTexts(NamedTuple):
    """``start`` opens the first user turn, ``user`` every later one; ``strip`` cuts off whitespace around turns."""

    start: str
    user_end: str
    user: str
    assistant: str
    assistant_end: str
    strip: bool

    def joined(self, turns: Sequence[str]) -> str:
        """The text of a conversation; user and assistant take turns."""
        text = ""
        for index, turn in enumerate(turns):
            before = self.assistant if index % 2 else self.user if index else self.start
            text += before + turn + (self.assistant_end if index % 2 else self.user_end)
        return text


class _Trial:
    """One template with the variables that it is rendered with."""

    def __init__(self, source: str, variables: dict[str, str], date: str) -> None:
        self._template = JinjaTemplate(source, date)
        self._variables = variables
        self.reads = sorted(self._template.reads)
        self.pad = " "

    def __call__(self, messages: Sequence[dict[str, Any]], tools: list[Any] | None = None) -> str:
        return self._template.render(messages, tools, self._variables, MAX_CHARS)

    def turns(self, turns: Sequence[str]) -> str:
        """The text of a chat in which user and assistant take turns."""
        roles = cycle(("user", "assistant"))
        return self([{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)])

    def marks(self, turns: int) -> list[str]:
        return [f"{self.pad}@{index}@{self.pad}" for index in range(turns)]


def texts(trial: _Trial) -> ChatTexts:
    """The texts around turns, read from the shortest chats that show them and checked on longer ones.

    Raises:
        ValueError: the template is not made of texts around turns.
    """
    found = _texts(trial)
    for turns in (trial.marks(2), trial.marks(TURNS), ["a", _THINKING, "b", _THINKING, "c", "d"]):
        if found.joined(turns) != trial.turns(turns):
            raise ValueError(
                "it renders a turn differently once others follow, or changes what was said; write its texts in a "
                "recipe of your own"
            )
    return found


def _texts(trial: _Trial) -> ChatTexts:
    strip = " @0@ " not in trial.turns(trial.marks(1))
    if strip:
        trial.pad = ""
    start, user_end = trial.turns(trial.marks(1)).split(trial.marks(1)[0])
    marks = trial.marks(3)
    _, opened, assistant_end = _split(trial.turns(marks[:2]), marks[:2])
    _, _, closed, _ = _split(trial.turns(marks), marks)
    return ChatTexts(
        start, user_end, closed.removeprefix(assistant_end), opened.removeprefix(user_end), assistant_end, strip
    )


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        before, text = text.split(mark)
        parts.append(before)
    return [*parts, text]


def fields(trial: _Trial) -> dict[str, Any]:
    """``content`` and ``arguments`` of a ``ChatTemplate``, and the names that it reads.

    Raises:
        ValueError: it renders no user turn.
    """
    without, with_empty = _arguments(trial, {}), _arguments(trial, {"content": ""})
    return {
        "content": _content(trial),
        "empty_content": without is None and with_empty is not None,
        "arguments": without or with_empty or "object",
        "reads": trial.reads,
    }


def _content(trial: _Trial) -> str:
    user, *others = _turns()
    as_text, as_parts = _reads(trial, *user, _MARK), _reads(trial, *user, _PARTS)
    if not (as_text or as_parts):
        trial([{"role": "user", "content": _MARK}])  # raises what the template says
        raise ValueError("it leaves out what the user says")
    if as_text and as_parts:
        only_text = any(_reads(trial, *turn, _MARK) and not _reads(trial, *turn, _PARTS) for turn in others)
        return "text" if only_text else "both"
    return "parts" if as_parts else "text"


def _turns() -> list[tuple[list[dict[str, Any]], int]]:
    """Chats with the index of one turn: of a user first, then of the other roles."""
    said = [{"role": role, "content": "said"} for role in ("system", "user", "assistant")]
    return [(said[1:2], 0), (said[:2], 0), (said[1:], 1), (_calling({}, {"content": ""})[:3], 2)]


def _reads(trial: _Trial, chat: Sequence[dict[str, Any]], at: int, content: Any) -> bool:
    """Whether a turn shows this content. Some templates print a list as Python does."""
    found = _tried(trial, [*chat[:at], chat[at] | {"content": content}, *chat[at + 1 :]])
    return _MARK in found and "'type'" not in found


def _arguments(trial: _Trial, content: dict[str, str]) -> str | None:
    """How arguments are handed over in a turn with this content; None if the template refuses such a chat.

    A template without a place for the tool's answer is tried without one.
    """
    for turns in (4, 2):
        as_object = _tried(trial, _calling({_MARK: _VALUE}, content)[:turns], [_TOOL])
        as_text = _tried(trial, _calling(json.dumps({_MARK: _VALUE}), content)[:turns], [_TOOL])
        in_python = f"{{'{_MARK}'" in as_object  # the template prints what it is given, so it is meant to be JSON text
        if _VALUE in as_text and (in_python or _VALUE not in as_object):
            return "text"
        if as_object:
            return "object"
    return None


def _calling(arguments: Any, content: dict[str, str]) -> list[dict[str, Any]]:
    call = {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return [
        {"role": "user", "content": "asked"},
        {"role": "assistant", **content, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "name": "look_up", "content": "found"},
        {"role": "assistant", "content": "said"},
    ]


def _tried(trial: _Trial, messages: Sequence[dict[str, Any]], tools: list[Any] | None = None) -> str:
    """The text of a chat; empty if the template refuses it."""
    try:
        return trial(messages, tools)
    except Unrenderable:
        return ""


def _answer(read: Callable[[_Trial], Any], trial: _Trial) -> dict[str, Any]:
    try:
        return {"found": read(trial)}
    except (Unrenderable, ValueError, RecursionError, MemoryError) as error:
        return {"error": str(error) or type(error).__name__}


def main() -> None:
    limit_process(memory=SPARE_BYTES, cpu_seconds=CPU_SECONDS, file_bytes=0)
    trial = _Trial(**json.load(sys.stdin))
    json.dump({"texts": _answer(texts, trial), "fields": _answer(fields, trial)}, sys.stdout)


if __name__ == "__main__":
    main()
