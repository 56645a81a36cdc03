"""Which engine a checkpoint gets: the prefix engine is tried and proved on random tokens before it is trusted."""

import logging
from collections.abc import Callable
from math import prod
from typing import Final, Literal

import torch

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError, CheckpointTooLarge
from model_store.format.manifest import Manifest
from model_store.format.store import REFERENCE, Checkpoint
from model_store.network.model import RatioModel, RewardModel, load_model
from model_store.network.quantise import BYTES, Bits, ScoreError, dtype_of, may_be_quantised, quantise
from model_store.network.tensors import tensor_shapes
from service.engine.device_memory import free_bytes
from service.engine.packed_linear import pack_linears
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.probe import Probe, why_not_prefixes

logger = logging.getLogger(__name__)
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
    probe = Probe.of(model, longest)  # by the plain forward, before anything is made faster
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
