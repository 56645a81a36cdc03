"""Which engine a checkpoint gets: the prefix engine is tried and proved on random tokens before it is trusted."""

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from agentprm.errors import AgentPRMError, CheckpointError, CheckpointTooLarge
from model_store.heads import LinearHead
from model_store.manifest import Manifest
from model_store.model import RatioModel, RewardModel, load_model, score_rows
from model_store.quantise import BYTES, Bits, ScoreError, dtype_of, may_be_quantised, quantise
from model_store.store import REFERENCE, Checkpoint
from model_store.tensors import tensor_shapes
from service.engine import PaddedEngine, PrefixEngine, rescales_positions
from service.memory import free_bytes
from service.packed_linear import pack_linears

logger = logging.getLogger(__name__)

TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Of the probe, in standard deviations of the hidden states. What is wrong is off by 0.2 and more."""
GIB: Final = 2**30
Weights = Bits | Literal["auto"]


def load_engine(
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    *,
    prefix_cache_bytes: int,
    cpu_threads: int,
    split_over: int = 1,
    weights: Weights = "auto",
    on_quantised: Callable[[ScoreError], None] = lambda _: None,
) -> PrefixEngine | PaddedEngine:
    """The engine of a checkpoint; device "auto" is cuda where there is one, dtype "auto" on a CPU float32.

    ``cpu_threads`` holds for the whole process; ``on_quantised`` hears what weights other than "auto" cost in score.
    ``split_over``: as ``load_model`` takes it.

    Raises:
        CheckpointError: weights that cannot be loaded, or have no room on the device.
        AgentPRMError: a CUDA device was asked for and is not there, or what quantises is not.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise AgentPRMError(f"device {device} is not there: torch finds {torch.cuda.device_count()} CUDA devices")
    dtype = dtype_of(dtype, weights)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    torch.set_num_threads(cpu_threads)
    if weights != "auto" and split_over > 1:
        raise CheckpointError("weights of fewer bits cannot be split over devices: use workers of one device each")
    refuse_what_does_not_fit(checkpoint, device, dtype, weights, split_over)
    model = load_model(checkpoint, device if weights == "auto" else "cpu", dtype, split_over)
    if weights != "auto":
        on_quantised(_quantised(model, checkpoint.manifest, device, weights))
    return choose_engine(model, prefix_cache_bytes=prefix_cache_bytes, longest=checkpoint.manifest.context_length)


def _quantised(model: RewardModel, manifest: Manifest, device: str, bits: Bits) -> ScoreError:
    error = quantise(model, bits, manifest.score.promise, device=device, longest=manifest.context_length)
    logger.info("%s with %s weights: %s", manifest.reference, bits, error)
    return error


def choose_engine(model: RewardModel, *, prefix_cache_bytes: int, longest: int) -> PrefixEngine | PaddedEngine:
    """The prefix engine if it gives this model's scores, else the padded one; decided by trying, not by name.

    Takes the model over: its linear layers are packed for the device.
    """
    if isinstance(model, RatioModel):  # what it reads at a token is a sum over those before, and needs two forwards
        for backbone in model.backbones():
            pack_linears(backbone)
        return PaddedEngine(model)
    plain = model.backbone.config._attn_implementation  # noqa: SLF001  (transformers has no public reader)
    probe = _Probe.of(model, longest)  # by the plain forward, before anything is made faster
    pack_linears(model.backbone)
    why = why_not_prefixes(model, probe, longest)
    if why is None:
        return PrefixEngine(model, cache_bytes=prefix_cache_bytes, longest=longest)
    logger.warning("prefixes are not shared for %s: %s", type(model.backbone).__name__, why)
    model.backbone.set_attn_implementation(plain)
    return PaddedEngine(model)


def refuse_what_does_not_fit(
    checkpoint: Checkpoint, device: str, dtype: str, weights: Weights = "auto", split_over: int = 1
) -> None:
    """By the sizes that the safetensors headers tell, before a weight is read; what is held for later comes on top.

    Weights that are to be quantised pass in full through the host.

    Raises:
        CheckpointTooLarge: the weights in their dtype need more than the device, or the host, has free.
    """
    if weights != "auto":
        refuse_what_does_not_fit(checkpoint, "cpu", dtype)
        if device == "cpu":
            return
    manifest = checkpoint.manifest
    each = getattr(torch, manifest.dtype if dtype == "auto" else dtype).itemsize
    shapes = [tensor_shapes(path) for path in (checkpoint.path, checkpoint.path / REFERENCE)]  # few have the second
    needed = sum(
        prod(shape) * (BYTES[weights] if weights != "auto" and may_be_quantised(name, shape) else each)
        for model in shapes
        for name, shape in model.items()
    )
    needed /= split_over
    free = free_bytes(device)
    if free is not None and needed > free:
        raise CheckpointTooLarge(
            f"{manifest.reference} needs {needed / GIB:.1f} GiB on {device} and {free / GIB:.1f} GiB are free"
        )


class _Probe(NamedTuple):
    """Calls on random tokens, and the scores that a plain forward gives at each of theirs under a random head."""

    head: LinearHead
    calls: list[list[list[int]]]
    expected: list[Tensor]

    @classmethod
    def of(cls, model: RewardModel, longest: int) -> "_Probe":
        random = torch.Generator().manual_seed(0)
        head = LinearHead(torch.randn(model.backbone.config.hidden_size, generator=random))
        head.to(next(model.parameters()).device)
        calls = _probe_calls(min(max(longest, 8), 64), model.backbone.config.vocab_size, random)
        plain = RewardModel(model.backbone, head)
        raw = [row for call in calls for row in score_rows(plain, call, _all(call), row_tokens=1)]
        return cls(head, calls, [torch.tensor(row) for row in raw])


@torch.inference_mode()
def why_not_prefixes(model: RewardModel, probe: _Probe, longest: int) -> str | None:
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
