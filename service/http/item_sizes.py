"""Sizes of request items, checked before anything is made of their texts.

A model reads far fewer characters than a body may hold: those of 64 candidates would be copied 64 times with their
history, tokenized, and refused only then.
"""

from collections.abc import Iterator, Sequence

from agentprm import wire
from agentprm.errors import TooLong


def refuse_large_item(index: int, item: wire.TrajectoryItem | wire.RankItem, max_characters: int) -> None:
    """Raises TooLong if the item has more than ``max_characters``, its longest candidate included."""
    characters = characters_of(item)
    if characters > max_characters:
        raise TooLong(
            f"item {index} has {characters} characters, {max_characters} are allowed",
            details={"item": index, "characters": characters, "limit": max_characters},
        )


def refuse_costly_arguments(items: Sequence[wire.TrajectoryItem | wire.RankItem]) -> None:
    """Raises TooLong if the arguments of all tool calls hold more JSON values than a body may.

    They are JSON in a string of the body, where their values were not counted.
    """
    size = wire.JSONSize()
    for item in items:
        for arguments in _arguments(item):
            size.add_whole(arguments.encode())


def characters_of(item: wire.TrajectoryItem | wire.RankItem) -> int:
    """Returns the characters of an item's texts, its longest candidate included."""
    characters = len(item.task or "")
    characters += sum(len(step.observation) + len(step.action) for step in item.steps or ())
    characters += sum(map(len, item.tools or ())) + sum(map(_characters_of_turn, item.messages or ()))
    if isinstance(item, wire.RankItem):
        characters += len(item.observation or "") + max(map(_characters_of_turn, item.candidates or ()), default=0)
    return characters


def _characters_of_turn(turn: str | wire.Message) -> int:
    if isinstance(turn, str):
        return len(turn)
    content = turn.content or ""
    characters = len(content) if isinstance(content, str) else sum(map(_characters_of_part, content))
    characters += sum(len(text or "") for text in (turn.reasoning_content, turn.reasoning, turn.thinking))
    characters += len(turn.name or turn.tool_name or "") + len(turn.tool_call_id or "")
    for call in turn.tool_calls or ():
        characters += len(call.id or "")
        characters += len(call.function.name) + len(call.function.arguments) if call.function else 0
    return characters


def _characters_of_part(part: wire.ContentPart) -> int:
    return sum(len(text or "") for text in (part.text, part.thinking, part.reasoning))


def _arguments(item: wire.TrajectoryItem | wire.RankItem) -> Iterator[str]:
    turns = [*(item.messages or ()), *((item.candidates or ()) if isinstance(item, wire.RankItem) else ())]
    for turn in turns:
        if isinstance(turn, wire.Message):
            yield from (call.function.arguments for call in turn.tool_calls or () if call.function)
