"""Splits of rollouts by query, so that attempts at one task are never on both sides."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from training.rollouts.rollout import Rollout

_SCALE: Final = 2**64


class Split(NamedTuple):
    """Rollouts to learn from, and those of other queries that a model is measured on."""

    train: list[Rollout]
    held_out: list[Rollout]


def split(rollouts: Sequence[Rollout], held_out_share: float, seed: int) -> Split:
    """Parts rollouts by the hashes of their queries; about ``held_out_share`` of the queries are held out.

    A query is on the same side in every file and with every other query beside it.
    """
    parts = Split([], [])
    for rollout in rollouts:
        (parts.held_out if is_held_out(rollout.query, held_out_share, seed) else parts.train).append(rollout)
    return parts


def is_held_out(query: str, held_out_share: float, seed: int) -> bool:
    """Returns whether a query is held out; only its text, the share and the seed decide."""
    digest = sha256(f"{seed} {query}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) < held_out_share * _SCALE
