"""What rendering an item costs, in characters that are tokenised in the same time."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from agentprm.errors import RequestError
from agentprm.types import Conversation, Message, Overflow, State, Trajectory

TEXT_CHARS: Final = 16
"""Characters that each text counts in addition: cutting and looking it up takes as long as tokenising these."""
TURN_CHARS: Final = 150
"""Characters that each turn counts which a chat template renders: it takes some 15 us."""
CUT_COST: Final = 4
"""Times that an item's characters count if its history may be cut: cuts at quarters of the context overlap so often."""


def rendering_cost(
    history: Trajectory | State | Conversation | RequestError,
    candidates: Sequence[str | Message],
    overflow: Overflow,
    *,
    anew: bool,
    scores: int | None = None,
) -> int:
    """The cost of an item; 0 for an error.

    Args:
        history: what is scored, or the error that the item has already.
        candidates: actions after the history.
        overflow: whether the history may be cut.
        anew: whether each score takes a rendering of the whole history.
        scores: the number of steps that are scored, or None for all. Candidates are scored all.
    """
    if isinstance(history, RequestError):
        return 0
    texts = [*_texts(history), *chain.from_iterable(map(_texts, candidates))]
    cost = sum(map(len, texts)) + TEXT_CHARS * len(texts)
    if anew:
        half_of_all = _steps(history) // 2 + 1  # the chat up to a step is half of it on average
        renderings = 1 + len(candidates) if candidates else scores or half_of_all
        cost += TURN_CHARS * _turns(history) * renderings
    return cost if overflow == "error" else CUT_COST * cost


def _turns(history: Trajectory | State | Conversation) -> int:
    return len(history.messages) if isinstance(history, Conversation) else 1 + 2 * len(history.steps)


def _steps(history: Trajectory | State | Conversation) -> int:
    return len(history.step_ends if isinstance(history, Conversation) else history.steps)


def _texts(part: Trajectory | State | Conversation | Message | str) -> Iterator[str]:
    """Every text of a history or a candidate."""
    match part:
        case str():
            yield part
        case Message():
            yield part.text
            yield from (text for call in part.tool_calls for text in (call.name, call.arguments))
            yield part.reasoning or ""
        case Conversation():
            yield from part.tools
            yield from chain.from_iterable(map(_texts, part.messages))
        case _:
            yield part.task
            yield from (text for step in part.steps for text in (step.observation, step.action))
            yield part.observation if isinstance(part, State) else ""
