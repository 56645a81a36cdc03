"""Finds out whether a model keeps its scores when prefixes are shared: by its configuration, its masks and a probe.

The probe scores random tokens, so it sees what the model does at its own length. What may change beyond that length is
read from the masks, at the full context, and from the configuration.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from model_store.errors import one_line
from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, score_rows
from service.engine.attention_calls import attention_calls, fewest_read
from service.engine.attention_fields import changing_positions, rescaling_length, unknown_field
from service.engine.prefix_engine import PrefixEngine

TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest score error of the probe, in standard deviations of its scores. A wrong engine errs by 0.2 and more."""
PROBE_TOKENS: Final = 64
LONGEST_PROBE_TOKENS: Final = {"cpu": 1024, "cuda": 32768}
"""Tokens of the longest sequence of a probe, by device: more would take minutes with a model of billions of weights."""


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
        calls = _probe_calls(probe_length(model, context_length), model.vocabulary, random)
        plain = RewardModel(model.backbone, head)
        raw = [row for call in calls for row in score_rows(plain, call, _all_positions(call), row_tokens=1)]
        return cls(head, calls, [torch.tensor(row) for row in raw])


def probe_length(model: RewardModel, context_length: int) -> int:
    """Returns the tokens of the longest probed sequence: twice the last position at which queries are scaled anew.

    Positions that no sequence of the context reaches do not count, and the device limits the length.
    """
    reached = _reached(model, context_length)
    longest = LONGEST_PROBE_TOKENS[model.backbone.device.type]
    return min(max(context_length, 2), longest, max(PROBE_TOKENS, 2 * max(reached, default=0)))


def unshareable(model: RewardModel, context_length: int) -> str | None:
    """Returns why prefixes cannot be shared in sequences of ``context_length`` tokens; None if a probe must decide."""
    config = model.backbone.config
    unscaled = rescaling_length(config)
    if unscaled is not None and unscaled < context_length:
        return f"its rotary embedding depends on the longest position of a forward beyond {unscaled} tokens"
    if field := unknown_field(config):
        return f"its configuration has {one_line(field, 80)}, whose effect on attention is not known"
    probed = probe_length(model, context_length)
    for start in _reached(model, context_length):
        if probed < context_length and probed < start + start // 8:
            return f"its attention changes at token {start}, and a probe has at most {probed} tokens on this device"
    try:
        return _unshareable_calls(model, context_length)
    except Exception as error:  # noqa: BLE001  (a model may fail in any way on an attention that it does not know)
        return _sentence(error)


def _reached(model: RewardModel, context_length: int) -> list[int]:
    """Returns the positions of the context at which queries are scaled anew."""
    return [start for start in changing_positions(model.backbone.config) if start < context_length]


def _unshareable_calls(model: RewardModel, context_length: int) -> str | None:
    calls, layers = attention_calls(model), model.backbone.config.get_text_config().num_hidden_layers
    if not calls:
        return "it does not compute attention through the interface of transformers"
    if sorted(call.layer for call in calls) != list(range(layers)):
        return f"its {layers} layers do not have attention once each, so they may keep another state"
    masks = {call.mask for call in calls if call.mask is not None}
    read = min((fewest_read(mask, context_length, model.backbone.device) for mask in masks), default=context_length)
    if read == context_length:
        return None
    return f"its attention lets a token read as few as {read} tokens, and the context has {context_length}"


@torch.inference_mode()
def sharing_error(model: RewardModel, probe: Probe, context_length: int) -> str | None:
    """Returns why the model's scores cannot be computed from shared prefixes; None if they can.

    The probe covers an empty and a filled cache. Replaces the model's attention function.
    """
    try:
        engine = PrefixEngine(RewardModel(model.backbone, probe.head), cache_bytes=2**40, context_length=context_length)
        scored = [scores for call in probe.calls for scores in engine.score(call, _all_positions(call))]
    except Exception as error:  # noqa: BLE001  (a model may fail in any way on a row that it does not understand)
        return _sentence(error)
    pairs = zip(scored, probe.expected, strict=True)
    max_error = max((torch.tensor(scores.raw) - raw).abs().max() for scores, raw in pairs)
    deviation = torch.cat(probe.expected).std()
    if max_error <= TOLERANCE[model.backbone.dtype] * deviation:
        return None
    return f"its scores are off by {max_error / deviation:.2g} standard deviations when prefixes are shared"


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


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
