"""Choosers of an action among those proposed: the first, the most frequent, the most promising."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentprm.types import State

Choose = Callable[[Sequence[State], Sequence[Sequence[str]]], list[str]]
"""Picks an action in each state: [states] and [states][proposals], duplicates included, to [states]."""


def first(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """The action proposed first: the policy without a judge."""
    return [actions[0] for actions in proposed]


def majority(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """The action proposed most often; ties go to the one proposed first."""
    return [Counter(actions).most_common(1)[0][0] for actions in proposed]


Promises = Callable[[Sequence[State], Sequence[Sequence[str]]], list[list[float]]]
"""Returns the promise of each distinct action: [states] and [states][distinct actions] to the same shape."""


@dataclass(frozen=True, slots=True)
class BestPromise:
    """The action of highest promise + ``count_weight`` * log(how often it was proposed); 0 is the plain argmax.

    A plain argmax over many proposals finds the action that the judge overrates most. The count lets the policy vote.
    """

    promises: Promises
    count_weight: float = 0.0

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        counts = [Counter(actions) for actions in proposed]
        promises = self.promises(states, [list(counted) for counted in counts])
        return [self._best(counted, scores) for counted, scores in zip(counts, promises, strict=True)]

    def _best(self, counted: Counter[str], promises: list[float]) -> str:
        values = {
            action: promise + self.count_weight * math.log(count)
            for (action, count), promise in zip(counted.items(), promises, strict=True)
        }
        return max(values, key=values.__getitem__)
