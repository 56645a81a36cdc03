"""Items of OpenAI's Responses API."""

from collections.abc import Iterable
from typing import Any, Final

from agentprm.chats.objects import Fields, Object, as_fields, objects
from agentprm.chats.turns import Part, assistant, content_of, text_part, tool_call, unscored

_TEXTS: Final = ("input_text", "output_text", "text", "reasoning_text", "summary_text")


def from_responses(items: str | Iterable[Any], *, instructions: str | None = None) -> list[Fields]:
    """Returns the input items of a request and the output items of its responses, in order, as an OpenAI chat.

    An assistant's message, the reasoning before it and the calls after it are one turn. Left out: reasoning that is
    encrypted and has no summary.

    Args:
        items: dictionaries, or objects of the ``openai`` package; a text is one user message.
        instructions: the instructions of the request, which become a system message.

    Raises:
        InvalidRequest: an item is not a message, reasoning, a function call or its output, or holds more than text.
    """
    chat: list[Fields] = [] if instructions is None else [{"role": "system", "content": instructions}]
    if isinstance(items, str):
        return [*chat, {"role": "user", "content": items}]
    turn = _Turn()
    for at, given in enumerate(items):
        place = f"items.{at}"
        item = as_fields(place, given)
        if turn.ends_before(item):
            chat += turn.ended()
            turn = _Turn()
        if not turn.took(place, item):
            chat.append(_other(place, item))
    return chat + turn.ended()


def tools_from_responses(tools: Iterable[Any]) -> list[Fields]:
    """Returns the function tools of the Responses API as those of chat completions.

    Raises:
        InvalidRequest: a tool of OpenAI's own, which has no schema.
    """
    converted = []
    for at, given in enumerate(tools):
        tool = as_fields(f"tools.{at}", given)
        if tool.get("type") != "function":
            raise unscored(f"tools.{at}", tool.get("type"))
        function = {name: held for name, held in tool.items() if name != "type" and held is not None}
        converted.append({"type": "function", "function": function})
    return converted


class _Turn:
    """An assistant's turn that is being put together."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._thoughts: list[str] = []
        self._calls: list[Fields] = []

    def ends_before(self, item: Object) -> bool:
        """Returns whether the item begins another turn."""
        kind = _kind(item)
        if kind == "function_call":
            return False
        if kind == "message" and item.get("role") == "assistant":
            return bool(self._parts)
        return kind != "reasoning" or bool(self._parts or self._calls)

    def took(self, place: str, item: Object) -> bool:
        """Adds an item of the assistant's. Returns False for any other, which is none of its turn."""
        kind = _kind(item)
        if kind == "reasoning":
            self._thoughts += [part["text"] for part in _texts(place, item.get("content") or item.get("summary") or ())]
        elif kind == "function_call":
            self._calls.append(tool_call(item["call_id"], item["name"], item["arguments"]))
        elif kind == "message" and item.get("role") == "assistant":
            self._parts += _texts(f"{place}.content", item["content"])
        else:
            return False
        return True

    def ended(self) -> list[Fields]:
        """Returns the turn, or nothing if there is none."""
        if not (self._parts or self._calls or self._thoughts):
            return []
        return [assistant(self._parts, self._thoughts, self._calls)]


def _other(place: str, item: Object) -> Fields:
    """Returns the message of an item that is not the assistant's."""
    kind = _kind(item)
    if kind == "message":
        return {"role": item["role"], "content": content_of(_texts(f"{place}.content", item["content"]))}
    if kind == "function_call_output":
        output = content_of(_texts(f"{place}.output", item["output"]))
        return {"role": "tool", "tool_call_id": item["call_id"], "content": output}
    raise unscored(place, kind)


def _kind(item: Object) -> Any:
    return item.get("type") or ("message" if "role" in item else None)


def _texts(place: str, content: Any) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    parts = objects(place, content)
    for where, part in parts:
        if part.get("type") not in _TEXTS:
            raise unscored(where, part.get("type"))
    return [text_part(part["text"]) for _, part in parts]
