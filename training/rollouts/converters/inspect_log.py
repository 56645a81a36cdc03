"""Logs of Inspect, as ``.eval`` or JSON (``EvalLog`` of UKGovernmentBEIS/inspect_ai, 499e615).

The outcome is the value of the sample's first scorer: a number, or a letter of Inspect (C, I, P, N). Tools are those of
the first call of the model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from training.rollouts.converters.contract import Converter, Fields, LeftOut, objects

_WORDS: Final = {"c": 1.0, "p": 0.5, "i": 0.0, "n": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Scores that are no numbers, as Inspect's own ``value_to_float`` reads them."""
_ATTACHED: Final = "attachment://"


class _Score(BaseModel):
    value: Any = None


class _Call(BaseModel):
    id: str | None = None
    function: str
    arguments: dict[str, Any] | str


class _Error(BaseModel):
    message: str = ""


class _Message(BaseModel):
    role: str
    content: str | list[dict[str, Any]]
    tool_calls: list[_Call] | None = None
    tool_call_id: Any = None
    function: str | None = None
    error: _Error | None = None


class _Event(BaseModel):
    event: str = ""
    tools: list[dict[str, Any]] = []


class _Sample(BaseModel):
    task: str
    id: int | str
    epoch: int = 1
    uuid: str | None = None
    messages: list[_Message]
    scores: dict[str, _Score] | None = None
    events: list[_Event] = []
    attachments: dict[str, str] = {}
    error: dict[str, Any] | None = None
    limit: dict[str, Any] | None = None
    invalidation: dict[str, Any] | None = None


def _recognises(record: Fields) -> bool:
    return isinstance(record.get("eval"), dict) and ("samples" in record or "plan" in record)


def _parts(record: Fields) -> Iterable[Fields]:
    return (
        {**sample, "task": record["eval"].get("task", "")} for sample in objects({"samples": [], **record}, "samples")
    )


def _line(record: Fields, _: Path) -> Fields | LeftOut:
    sample = _Sample.model_validate(record)
    if sample.error or sample.invalidation:
        return LeftOut("samples of Inspect that ended in an error or were declared invalid")
    texts = sample.attachments
    tools = next((event.tools for event in sample.events if event.event == "model" and event.tools), [])
    scorer, score = next(iter((sample.scores or {}).items()), (None, _Score()))
    return {
        "messages": _attach([_turn(message) for message in sample.messages], texts),
        "tools": [{"type": "function", "function": tool} for tool in _attach(tools, texts)] or None,
        "outcome": _number(score.value),
        "truncated": sample.limit is not None,
        "query": f"{sample.task}/{sample.id}",
        "trajectory_id": sample.uuid,
        "metadata": {"source": "inspect", "sample": sample.id, "epoch": sample.epoch, "scorer": scorer},
    }


def _attach(value: Any, texts: dict[str, str]) -> Any:
    """Returns a value with the texts that the log keeps apart put back."""
    if isinstance(value, str):
        return texts.get(value.removeprefix(_ATTACHED), value) if value.startswith(_ATTACHED) else value
    if isinstance(value, dict):
        return {name: _attach(held, texts) for name, held in value.items()}
    return [_attach(held, texts) for held in value] if isinstance(value, list | tuple) else value


def _turn(message: _Message) -> Fields:
    turn: Fields = {"role": message.role, "content": _content(message.content)}
    if message.role == "tool":
        turn |= {"tool_call_id": message.tool_call_id, "name": message.function}
        if message.error:
            turn["content"] = f"Error: {message.error.message}"
    elif message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return turn


def _content(content: str | list[Fields]) -> str | list[Fields]:
    """Returns the parts with what each says; parts of other kinds than text and reasoning are refused later by type."""
    if isinstance(content, str):
        return content
    return [_part(part) for part in content if part.get("type") != "reasoning" or _thought(part)]


def _part(part: Fields) -> Fields:
    if part.get("type") == "reasoning":
        return {"type": "reasoning", "reasoning": _thought(part)}
    return {"type": part.get("type"), "text": part.get("text")}


def _thought(part: Fields) -> str:
    """Returns the reasoning that can be read: a provider's encrypted one cannot, its summary can."""
    shown = part.get("summary") if part.get("redacted") else part.get("reasoning")
    return shown or part.get("summary") or ""


def _number(value: Any) -> Any:
    """Returns a score as a number, None if it is none."""
    if isinstance(value, str):
        try:
            return _WORDS[value.lower()] if value.lower() in _WORDS else float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and value == value else None  # noqa: PLR0124 (NaN: not scored)


INSPECT: Final = Converter("inspect", _recognises, _line, _parts, unit="sample")
