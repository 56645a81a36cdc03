"""Proof on random tokens that shared prefixes give this model's scores."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, score_rows
from service.engine.padded_engine import rescales_positions
from service.engine.prefix_engine import PrefixEngine

TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Of the probe, in standard deviations of the hidden states. What is wrong is off by 0.2 and more."""


class Probe(NamedTuple):
    """Calls on random tokens, and the scores that a plain forward gives at each of theirs under a random head."""

    head: LinearHead
    calls: list[list[list[int]]]
    expected: list[Tensor]

    @classmethod
    def of(cls, model: RewardModel, longest: int) -> "Probe":
        random = torch.Generator().manual_seed(0)
        head = LinearHead(torch.randn(model.backbone.config.hidden_size, generator=random))
        head.to(next(model.parameters()).device)
        calls = _probe_calls(min(max(longest, 8), 64), model.backbone.config.vocab_size, random)
        plain = RewardModel(model.backbone, head)
        raw = [row for call in calls for row in score_rows(plain, call, _all(call), row_tokens=1)]
        return cls(head, calls, [torch.tensor(row) for row in raw])


@torch.inference_mode()
def why_not_prefixes(model: RewardModel, probe: Probe, longest: int) -> str | None:
    """Why this model's scores cannot be computed from shared prefixes; None if they can, cold and warm."""
    if rescales_positions(model):
        return "its rotary embedding depends on the longest position of a forward"
    try:
        engine = PrefixEngine(RewardModel(model.backbone, probe.head), cache_bytes=2**40, longest=longest)
        found = [scores for call in probe.calls for scores in engine.score(call, _all(call))]
    except Exception as error:  # noqa: BLE001  (whatever a model does with a row that it does not understand)
        return str(error) or type(error).__name__
    pairs = zip(found, probe.expected, strict=True)
    off = max((torch.tensor(scores.raw) - raw).abs().max() for scores, raw in pairs)
    spread = torch.cat(probe.expected).std()
    if off <= TOLERANCE[model.backbone.dtype] * spread:
        return None
    return f"its scores are off by {off / spread:.2g} standard deviations when prefixes are shared"


def _probe_calls(length: int, vocabulary: int, random: torch.Generator) -> list[list[list[int]]]:
    """Siblings, a prefix of one, a stranger; then two that continue a sibling and share that continuation too.

    Every way of sharing: what is held and what is new, and both joined to the same queries.
    """
    tokens = torch.randint(vocabulary, (4, length), generator=random).tolist()
    quarter, eighth = length // 4, length // 8
    shared = tokens[0][: length // 2]
    siblings = [shared + tokens[1][:quarter], shared + tokens[2][:quarter]]
    longer = siblings[1] + tokens[1][quarter : quarter + eighth]
    return [[*siblings, shared, tokens[3]], [longer + tokens[1][:eighth], longer + tokens[2][:eighth]]]


def _all(token_ids: Sequence[Sequence[int]]) -> list[range]:
    return [range(len(ids)) for ids in token_ids]
