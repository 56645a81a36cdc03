"""Ladders of cuts: each rung makes a history shorter.

A rung is found by arithmetic on token counts; only rendering shows whether its history fits. All depends on the texts
up to the step that is read and on nothing else, so a step is cut in the same way in every request.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from agentprm.types import Overflow
from service.scoring.history_parts import MARK_CHARS, History, Parts, shorten

CountTokens = Callable[[Sequence[str]], list[int]]
"""Counts the tokens of each text on its own."""

BLOCKS: Final = 4
"""Blocks of steps in a context. Whole ones are dropped, so that a cut stays while a quarter of the context fills."""
CAPS: Final = tuple(2**power for power in range(20, 5, -1))
"""Characters that the texts of shortened observations keep, rung by rung."""
_MARK_TOKENS: Final = 16


class Lens(NamedTuple):
    """Tokens of the head and of each observation and action, each with those that the template puts around it."""

    head: int
    observations: list[int]
    actions: list[int]

    def until(self) -> list[int]:
        """The tokens up to each position, from position 0 on."""
        actions = [*self.actions, 0][: len(self.observations)]
        pairs = zip(self.observations, actions, strict=True)
        return list(accumulate((sum(pair) for pair in pairs), initial=self.head))

    def last_whole(self, room: int) -> int:
        """The last position whose whole history has at most ``room`` tokens; 0 if none has."""
        return max(0, bisect_right(self.until(), room) - 1)


class Ladder(Protocol):
    """The cuts of one history. Rung 0 is the whole history, ``top`` the last rung."""

    top: int

    def start(self, position: int, room: int) -> int:
        """Returns the first rung above 0 whose history should have at most ``room`` tokens; ``top`` if none has."""
        ...

    def cut(self, position: int, rung: int) -> History:
        """Returns the history up to a position."""
        ...

    def dropped_steps(self, position: int, rung: int) -> int: ...

    def continues(self, position: int, rung: int, before: int) -> bool:
        """Returns whether the history up to the position before, at the rung ``before``, is a beginning of this one."""
        ...

    def cut_tokens(self, position: int, rung: int) -> int:
        """Returns the tokens of what the history lacks, text by text."""
        ...


class Dropping:
    """Drops the oldest steps in blocks: each rung drops the fewest steps that fill one quarter of the context more."""

    def __init__(self, parts: Parts, lens: Lens, context_length: int) -> None:
        self._parts = parts
        self._until = lens.until()
        pairs = zip(lens.actions, lens.observations[parts.gone_observation :], strict=False)
        self._gone = list(accumulate((sum(pair) for pair in pairs), initial=0))
        self._drops = _blocks(self._gone, max(1, context_length // BLOCKS))
        self._gone_by_rung = [self._gone[steps] for steps in self._drops]
        self.top = len(self._drops) - 1

    def start(self, position: int, room: int) -> int:
        rung = bisect_left(self._gone_by_rung, self._until[position] - room, lo=1)
        return min(rung, self.top)

    def cut(self, position: int, rung: int) -> History:
        return self._parts.dropped(position, self.dropped_steps(position, rung))

    def dropped_steps(self, position: int, rung: int) -> int:
        return min(self._drops[rung], self._parts.most_dropped(position))

    def continues(self, position: int, rung: int, before: int) -> bool:
        return self.dropped_steps(position - 1, before) == self.dropped_steps(position, rung)

    def cut_tokens(self, position: int, rung: int) -> int:
        return self._gone[self.dropped_steps(position, rung)]


class Shortening:
    """Cuts the middle of the longest observations, to half of the characters with each rung.

    The observation at the position stays whole until all others have their least length.
    """

    def __init__(self, parts: Parts, lens: Lens, count_tokens: CountTokens) -> None:
        self._parts = parts
        self._lens = lens
        self._until = lens.until()
        self._count_tokens = count_tokens
        self._saved: dict[int | None, list[int]] = {}
        self.top = 2 * len(CAPS)

    def start(self, position: int, room: int) -> int:
        for rung in range(1, self.top + 1):
            cap, last_cap = _caps(rung)
            saved = self._saved_until(cap)[position - 1] + self._saving(position - 1, last_cap)
            if self._until[position] - saved <= room:
                return rung
        return self.top

    def cut(self, position: int, rung: int) -> History:
        return self._parts.shortened(position, *_caps(rung))

    def dropped_steps(self, position: int, rung: int) -> int:
        del position, rung
        return 0

    def continues(self, position: int, rung: int, before: int) -> bool:
        (cap, _), (cap_before, last_cap) = _caps(rung), _caps(before)
        last = self._parts.observations[position - 2] if position > 1 else ()
        return cap == cap_before and all(shorten(text, cap) == shorten(text, last_cap) for text in last)

    def cut_tokens(self, position: int, rung: int) -> int:
        cap, last_cap = _caps(rung)
        *earlier, last = self._parts.observations[:position]
        texts = [(text, cap) for texts in earlier for text in texts] + [(text, last_cap) for text in last]
        pairs = [(text, short) for text, most in texts if (short := shorten(text, most)) != text]
        whole = sum(self._count_tokens([text for text, _ in pairs]))
        return max(0, whole - sum(self._count_tokens([short for _, short in pairs])))

    def _saved_until(self, cap: int | None) -> list[int]:
        """The tokens that shortening the first observations saves, by their number."""
        if cap not in self._saved:
            savings = (self._saving(at, cap) for at in range(len(self._parts.observations)))
            self._saved[cap] = list(accumulate(savings, initial=0))
        return self._saved[cap]

    def _saving(self, at: int, cap: int | None) -> int:
        if cap is None:
            return 0
        chars = [len(text) for text in self._parts.observations[at]]
        gone = sum(length - cap for length in chars if length > cap + MARK_CHARS)
        return max(0, self._lens.observations[at] * gone // sum(chars) - _MARK_TOKENS) if gone else 0


def ladder_of(overflow: Overflow, parts: Parts, lens: Lens, context_length: int, count_tokens: CountTokens) -> Ladder:
    if overflow == "drop_oldest":
        return Dropping(parts, lens, context_length)
    return Shortening(parts, lens, count_tokens)


def _blocks(gone: Sequence[int], block: int) -> list[int]:
    """Returns the number of dropped steps by rung. ``gone``: the tokens of the first steps, by their number."""
    drops, goal = [0], block
    for steps, tokens in enumerate(gone):
        if tokens >= goal:
            drops.append(steps)
            goal = (tokens // block + 1) * block
    last = len(gone) - 1
    return drops if drops[-1] == last else [*drops, last]


def _caps(rung: int) -> tuple[int | None, int | None]:
    """Returns the characters that older observations keep, and those of the last one; None: all."""
    if rung == 0:
        return None, None
    older = CAPS[min(rung, len(CAPS)) - 1]
    return older, CAPS[rung - len(CAPS) - 1] if rung > len(CAPS) else None
