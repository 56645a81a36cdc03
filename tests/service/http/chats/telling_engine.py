"""An engine for tests in which every token and its place count."""

from collections.abc import Sequence
from itertools import accumulate

from service.engine.contract import SequenceScores
from service.engine.echo import EchoEngine


class TellingEngine(EchoEngine):
    """Scores of two token sequences differ, whatever is different in them."""

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        scores = []
        for ids, positions in zip(token_ids, reads, strict=True):
            hashes = list(accumulate(ids, lambda so_far, token: (so_far * 257 + token + 1) % 999_983, initial=1))
            scores.append(SequenceScores([hashes[at + 1] / 999_983 for at in positions], len(ids)))
        return scores
