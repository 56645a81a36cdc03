"""A probe with random tokens, which finds out whether a model keeps its scores when prefixes are shared."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, score_rows
from service.engine.padded_engine import rescales_positions
from service.engine.prefix_engine import PrefixEngine

TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest score error of the probe, in standard deviations of its scores. A wrong engine errs by 0.2 and more."""


class Probe(NamedTuple):
    """Calls with random tokens, and the score of a plain forward with a random head at each of their tokens."""

    head: LinearHead
    calls: list[list[list[int]]]
    expected: list[Tensor]

    @classmethod
    def of(cls, model: RewardModel, context_length: int) -> "Probe":
        """Computes the expected scores by the model's own attention, one sequence a forward."""
        random = torch.Generator().manual_seed(0)
        head = LinearHead(torch.randn(model.backbone.config.hidden_size, generator=random))
        head.to(next(model.parameters()).device)
        calls = _probe_calls(min(max(context_length, 8), 64), model.backbone.config.vocab_size, random)
        plain = RewardModel(model.backbone, head)
        raw = [row for call in calls for row in score_rows(plain, call, _all_positions(call), row_tokens=1)]
        return cls(head, calls, [torch.tensor(row) for row in raw])


@torch.inference_mode()
def sharing_error(model: RewardModel, probe: Probe, context_length: int) -> str | None:
    """Returns why the model's scores cannot be computed from shared prefixes; None if they can.

    The probe covers an empty and a filled cache. Replaces the model's attention function.
    """
    if rescales_positions(model):
        return "its rotary embedding depends on the longest position of a forward"
    try:
        engine = PrefixEngine(RewardModel(model.backbone, probe.head), cache_bytes=2**40, context_length=context_length)
        scored = [scores for call in probe.calls for scores in engine.score(call, _all_positions(call))]
    except Exception as error:  # noqa: BLE001  (a model may fail in any way on a row that it does not understand)
        return str(error) or type(error).__name__
    pairs = zip(scored, probe.expected, strict=True)
    max_error = max((torch.tensor(scores.raw) - raw).abs().max() for scores, raw in pairs)
    deviation = torch.cat(probe.expected).std()
    if max_error <= TOLERANCE[model.backbone.dtype] * deviation:
        return None
    return f"its scores are off by {max_error / deviation:.2g} standard deviations when prefixes are shared"


def _probe_calls(length: int, vocabulary: int, random: torch.Generator) -> list[list[list[int]]]:
    """Returns two calls that cover every way of sharing: cached tokens, new tokens, and both read by one query.

    The first has two siblings, a prefix of both and an unrelated sequence. The second has two sequences that continue
    a sibling and share the beginning of their continuation.
    """
    tokens = torch.randint(vocabulary, (4, length), generator=random).tolist()
    quarter, eighth = length // 4, length // 8
    shared = tokens[0][: length // 2]
    siblings = [shared + tokens[1][:quarter], shared + tokens[2][:quarter]]
    longer = siblings[1] + tokens[1][quarter : quarter + eighth]
    return [[*siblings, shared, tokens[3]], [longer + tokens[1][:eighth], longer + tokens[2][:eighth]]]


def _all_positions(token_ids: Sequence[Sequence[int]]) -> list[range]:
    return [range(len(ids)) for ids in token_ids]
