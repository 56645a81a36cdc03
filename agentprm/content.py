"""The text and the reasoning of a message, wherever in it they stand."""

from typing import Literal

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.wire.chat_fields import PART, REASONING_PARTS, REFUSED_PARTS, TEXT_PARTS

Kind = Literal["text", "reasoning"]


def text_and_reasoning(place: str, message: wire.Message) -> tuple[str | tuple[str, ...] | None, str | None]:
    """Returns the content of a message without its reasoning, and the reasoning; None where there is none.

    Raises:
        InvalidRequest: a part of the content cannot be scored, or two places hold different reasoning.
    """
    content = message.content
    thoughts = {message.reasoning_content, message.reasoning, message.thinking}
    if isinstance(content, list):
        parts = [_part(f"{place}.content.{at}", part) for at, part in enumerate(content)]
        texts = tuple(text for kind, text in parts if kind == "text")
        thoughts.add("\n".join(text for kind, text in parts if kind == "reasoning"))
        return texts if texts or not parts else None, _the_one(place, thoughts)
    return content, _the_one(place, thoughts)


def _the_one(place: str, thoughts: set[str | None]) -> str | None:
    different = thoughts - {None, ""}
    if len(different) > 1:
        raise InvalidRequest(f"{place}: reasoning stands in two fields with different texts")
    return next(iter(different), None)


def _part(place: str, part: wire.ContentPart) -> tuple[Kind, str]:
    kind = _kind(place, part)
    text = part.text if kind == "text" else next(filter(None, (part.thinking, part.reasoning, part.text)), None)
    if text is None:
        raise InvalidRequest(f"{place}: a part of this type needs {'text' if kind == 'text' else 'its reasoning'}")
    others = {"text": part.text, "thinking": part.thinking, "reasoning": part.reasoning, **(part.model_extra or {})}
    unread = PART.unread({name: held for name, held in others.items() if held != text or name not in PART.read})
    if unread:
        raise InvalidRequest(f"{place}: {PART.refusal(unread)}")
    return kind, text


def _kind(place: str, part: wire.ContentPart) -> Kind:
    if part.type in TEXT_PARTS or (part.type is None and part.text is not None):
        return "text"
    if part.type in REASONING_PARTS:
        return "reasoning"
    if part.type is None:
        raise InvalidRequest(f"{place}: parts without a type are not scored")
    kind = f"type {part.type}" if part.type in REFUSED_PARTS else "this type"
    raise InvalidRequest(f"{place}: parts of {kind} are not scored")
