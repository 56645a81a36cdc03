"""Choosers, which take one of the actions proposed in a state: the first, the most frequent, the most promising.

Axes: S states; the actions of each state are as many as the policy proposed there, duplicates included.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentprm.types import State

Choose = Callable[[Sequence[State], Sequence[Sequence[str]]], list[str]]
"""Called with states [S] and the actions proposed in each, returns the action to take in each [S]."""


def first(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """Takes the action proposed first: the policy alone."""
    return [actions[0] for actions in proposed]


def majority(_states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
    """Takes the action proposed most often; ties go to the one proposed first."""
    return [Counter(actions).most_common(1)[0][0] for actions in proposed]


Promises = Callable[[Sequence[State], Sequence[Sequence[str]]], list[list[float]]]
"""Called with states [S] and the distinct actions of each, returns the promise in [0, 1] of each action."""


@dataclass(frozen=True, slots=True)
class BestPromise:
    """Takes the action of highest promise + ``count_weight`` * log(times it was proposed).

    ``count_weight`` 0 is the plain argmax, which over many proposals finds the action that the judge overrates most.
    The count brings in the policy's own preference.
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
