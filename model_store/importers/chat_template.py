"""The texts that a checkpoint's chat template puts around its turns, found by rendering marked conversations.

Some templates render a turn differently once others follow, or change its text. Texts around turns cannot express
that, and the scores would not be the authors', so such a template is refused.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

from transformers import PreTrainedTokenizerFast

from model_store.errors import CheckpointError, one_line

TURNS: Final = 6
_THINKING: Final = "<think>so</think>then"


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


def chat_texts(path: Path) -> ChatTexts:
    """The texts of a checkpoint's chat template.

    Raises:
        CheckpointError: it has none, or one that is not made of texts around turns.
    """
    try:
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
        render = _Rendering(tokenizer)
        texts = _texts(render)
        sound = all(
            texts.joined(turns) == render(turns)
            for turns in (render.marks(2), render.marks(TURNS), ["a", _THINKING, "b", _THINKING, "c", "d"])
        )
    except Exception as error:
        raise CheckpointError(f"{path}: its chat template cannot be used: {one_line(str(error), 300)}") from error
    if not sound:
        raise CheckpointError(
            f"{path}: its chat template renders a turn differently once others follow, or changes what was said; "
            "write its texts in a recipe of your own"
        )
    return texts


class _Rendering:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.pad = " "

    def __call__(self, turns: Sequence[str]) -> str:
        messages = [
            {"role": role, "content": turn} for role, turn in zip(cycle(("user", "assistant")), turns, strict=False)
        ]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))

    def marks(self, turns: int) -> list[str]:
        return [f"{self.pad}@{index}@{self.pad}" for index in range(turns)]


def _texts(render: _Rendering) -> ChatTexts:
    """Reads the texts from the shortest conversations that show them; ``chat_texts`` checks them on longer ones."""
    strip = " @0@ " not in render(render.marks(1))
    if strip:
        render.pad = ""
    start, user_end = render(render.marks(1)).split(render.marks(1)[0])
    marks = render.marks(3)
    _, opened, assistant_end = _split(render(marks[:2]), marks[:2])
    _, _, closed, _ = _split(render(marks), marks)
    return ChatTexts(
        start, user_end, closed.removeprefix(assistant_end), opened.removeprefix(user_end), assistant_end, strip
    )


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        before, text = text.split(mark)
        parts.append(before)
    return [*parts, text]
