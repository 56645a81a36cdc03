"""Which trajectories share an update, and which of them share a forward.

An update is an optimiser step on whole trajectories. Its trajectories are packed into forwards without padding: the
progress loss couples neighbouring steps, so a trajectory is never parted.
"""

import random
from collections.abc import Sequence
from itertools import accumulate

from training.data.encoding import Encoded


def updates(sizes: Sequence[int], tokens: int, epochs: int, seed: int) -> list[list[list[int]]]:
    """Returns indices of trajectories [epochs][updates][trajectories]; every trajectory comes once an epoch.

    The updates of an epoch hold about equally many tokens, at most about ``tokens``. ``sizes`` are the tokens of each
    trajectory. Each epoch has an order of its own, which ``seed`` decides.
    """
    return [_epoch(sizes, tokens, random.Random(f"epoch {seed} {epoch}")) for epoch in range(epochs)]


def _epoch(sizes: Sequence[int], tokens: int, rng: random.Random) -> list[list[int]]:
    order = rng.sample(range(len(sizes)), len(sizes))
    total = sum(sizes)
    count = -(-total // tokens)
    share: list[list[int]] = [[] for _ in range(count)]
    passed = accumulate((sizes[index] for index in order), initial=0)
    for index, before in zip(order, passed, strict=False):
        share[before * count // total].append(index)
    return [indices for indices in share if indices]


def pack(examples: Sequence[Encoded], tokens: int, *, padded: bool = False) -> list[list[Encoded]]:
    """Returns forwards of at most ``tokens`` tokens each; a trajectory with more has one of its own.

    Filled first-fit from the longest trajectory down. With ``padded`` a forward costs its rows at the longest one's
    length, so trajectories of similar length share one.
    """
    packs: list[list[Encoded]] = []
    for example in sorted(
        examples, key=lambda example: max(example.lengths) if padded else example.tokens, reverse=True
    ):
        open_packs = packs[-1:] if padded else packs
        fitting = (pack for pack in open_packs if cost([*pack, example], padded=padded) <= tokens)
        chosen = next(fitting, None)
        if chosen is None:
            packs.append([example])
        else:
            chosen.append(example)
    return packs


def cost(examples: Sequence[Encoded], *, padded: bool) -> int:
    """Returns the tokens that a forward over these trajectories computes."""
    lengths = [length for example in examples for length in example.lengths]
    return len(lengths) * max(lengths) if padded else sum(lengths)
