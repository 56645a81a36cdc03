"""A checkpoint's chat template: what it makes of chats, tried in a process of its own."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from model_store.errors import CheckpointError, one_line
from model_store.importers.chat_trial import ChatTexts
from model_store.importers.tokenizer_files import load_fast
from model_store.text.jinja import NOW

TOOLS_TEMPLATE: Final = "tool_use"
"""Name of the template for chats with tools, where a tokenizer has several."""
_SECONDS: Final = 60
_AS_IT_ENDS: Final = "{{ '' }}"
"""Keeps white space at the end of a template, which a tag behind it would take. A tag before takes one newline."""


class ChatSource(NamedTuple):
    """The text of a chat template, and the fields of ``chat`` in ``prm.json`` that follow from it."""

    text: str
    fields: dict[str, Any]

    @property
    def written(self) -> tuple[str, ...]:
        """Every text that can hold the template's special tokens."""
        return (self.text, *self.fields["variables"].values())


def chat_texts(path: Path) -> ChatTexts:
    """The texts that a checkpoint's chat template puts around its turns.

    Raises:
        CheckpointError: it has none, or one that is not made of texts around turns. Some templates render a turn
            differently once others follow.
    """
    source, variables = _source(path)
    return ChatTexts(*_found(path, _tried(source, json.dumps(variables)), "texts"))


def chat_source(path: Path) -> ChatSource:
    """A checkpoint's chat template, and how it reads chats.

    Raises:
        CheckpointError: it has none, or one that renders no chat.
    """
    source, variables = _source(path)
    found = _found(path, _tried(source, json.dumps(variables)), "fields")
    read = {name: text for name, text in variables.items() if name in found["reads"]}
    fields = {name: value for name, value in found.items() if name != "reads"} | {"variables": read}
    date = {"date": _today()} if NOW in found["reads"] else {}
    return ChatSource(source, fields | date)


def _source(path: Path) -> tuple[str, dict[str, str]]:
    """The template's text, and the special tokens that transformers gives to it."""
    tokenizer = load_fast(path)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = _either(path, template)
    if not template:
        raise CheckpointError(f"{path} has no chat template, which this preset renders by")
    return str(template), {name: str(token) for name, token in tokenizer.special_tokens_map.items()}


def _either(path: Path, templates: dict[str, str]) -> str:
    """One template that chooses as transformers does: the one for tools if there are some, else the default."""
    default, tools = templates.get("default"), templates.get(TOOLS_TEMPLATE)
    if default is None:
        raise CheckpointError(f"{path} has several chat templates and no default: {one_line(', '.join(templates))}")
    if tools is None:
        return default
    with_tools, without = ("\n" + text.removesuffix("\n") + _AS_IT_ENDS for text in (tools, default))
    return f"{{% if tools is not none %}}{with_tools}{{% else %}}{without}{{% endif %}}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@lru_cache(maxsize=64)
def _tried(source: str, variables: str) -> dict[str, Any]:
    request = {"source": source, "variables": json.loads(variables), "date": _today()}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "model_store.importers.chat_trial"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            cwd=Path(__file__).parents[2],  # where this package is found
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it took longer than {_SECONDS} seconds"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        return {"error": lines[-1]}
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def _found(path: Path, answers: dict[str, Any], wanted: str) -> Any:
    answer = answers.get(wanted, answers)
    if "error" in answer:
        raise CheckpointError(f"{path}: its chat template cannot be used: {one_line(answer['error'], 300)}")
    return answer["found"]
