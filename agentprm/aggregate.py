"""One number for a trajectory, from the promises of its steps.

Which one fits depends on how a model was trained: PQM and ER-PRM take the minimum, RLHFlow's models the mean. The last
promise of a model whose promise is Q(s, a) is its estimate of the final success.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

Aggregate = Literal["last", "min", "mean", "product"]


def _mean(promises: Sequence[float]) -> float:
    return math.fsum(promises) / len(promises)


_AGGREGATES: Final[Mapping[Aggregate, Callable[[Sequence[float]], float]]] = {
    "last": lambda promises: promises[-1],
    "min": min,
    "mean": _mean,
    "product": math.prod,
}


def aggregate(how: Aggregate, promises: Sequence[float]) -> float:
    """Returns a number in [0, 1] from the promises of a trajectory's steps, in their order; there is one at least."""
    return _AGGREGATES[how](promises)
