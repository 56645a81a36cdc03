"""Loads a checkpoint and selects its engine: the prefix engine if it passes a probe, else the padded one."""

import logging
from collections.abc import Callable
from math import prod
from typing import Final, Literal

import torch

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError, CheckpointTooLarge, one_line
from model_store.format.manifest import Manifest
from model_store.format.store import REFERENCE, Checkpoint
from model_store.network.model import RatioModel, RewardModel, load_model
from model_store.network.quantise import BYTES, Bits, ScoreError, dtype_of, may_be_quantised, quantise
from model_store.network.tensors import tensor_shapes
from service.engine.causality import refuse_unless_causal
from service.engine.device_memory import free_bytes
from service.engine.packed_linear import pack_where_equal
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.probe import Probe, sharing_error, unshareable

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
    """Loads a checkpoint and returns its engine.

    Args:
        checkpoint: the checkpoint.
        device: "auto" is cuda if there is one, else cpu.
        dtype: "auto" is float32 on a CPU, else the checkpoint's own.
        prefix_cache_bytes: limit of the prefix cache.
        cpu_threads: set for the whole process.
        split_over: devices that share each layer (tensor parallel), as ``load_model`` takes it.
        weights: bits of quantised weights; "auto" keeps the checkpoint's own.
        on_quantised: called with the score error of quantised weights.

    Raises:
        CheckpointError: the weights cannot be loaded, split or quantised, or do not fit into free memory.
        AgentPRMError: the CUDA device does not exist, or torchao is missing or has no kernel for it.
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
    check_fits(checkpoint, device, dtype, weights, split_over)
    model = load_model(checkpoint, device if weights == "auto" else "cpu", dtype, split_over)
    if weights != "auto":
        on_quantised(_quantise(model, checkpoint.manifest, device, weights))
    return _engine_of(checkpoint.manifest, model, prefix_cache_bytes)


def _engine_of(manifest: Manifest, model: RewardModel, prefix_cache_bytes: int) -> PrefixEngine | PaddedEngine:
    try:
        return choose_engine(model, prefix_cache_bytes=prefix_cache_bytes, context_length=manifest.context_length)
    except AgentPRMError:
        raise
    except Exception as error:
        raise CheckpointError(f"{manifest.reference} cannot be computed: {one_line(str(error), 500)}") from error


def _quantise(model: RewardModel, manifest: Manifest, device: str, bits: Bits) -> ScoreError:
    error = quantise(model, bits, manifest.score.promise, device=device, longest=manifest.context_length)
    logger.info("%s with %s weights: %s", manifest.reference, bits, error)
    return error


def choose_engine(model: RewardModel, *, prefix_cache_bytes: int, context_length: int) -> PrefixEngine | PaddedEngine:
    """Returns the prefix engine if it reproduces this model's scores, else the padded one. Decided by a probe.

    Takes over the model: replaces its attention function and packs its linear layers.

    Args:
        model: the model on its device.
        prefix_cache_bytes: limit of the prefix cache.
        context_length: tokens of the longest sequence that will be scored.

    Raises:
        CheckpointError: the score at a token would depend on the tokens after it.
    """
    for backbone in model.backbones():
        refuse_unless_causal(backbone)
    if isinstance(model, RatioModel):  # its score at a token sums over earlier tokens and takes two forwards
        for backbone in model.backbones():
            pack_where_equal(backbone)
        return PaddedEngine(model)
    attention = model.backbone.config._attn_implementation  # noqa: SLF001  (transformers has no public reader)
    reason = unshareable(model, context_length)
    # The expected scores must come from the model as it was loaded.
    probe = Probe.of(model, context_length) if reason is None else None
    pack_where_equal(model.backbone)
    if probe is not None:
        reason = sharing_error(model, probe, context_length)
    if reason is None:
        return PrefixEngine(model, cache_bytes=prefix_cache_bytes, context_length=context_length)
    logger.warning("prefixes are not shared for %s: %s", type(model.backbone).__name__, reason)
    model.backbone.set_attn_implementation(attention)
    return PaddedEngine(model)


def check_fits(checkpoint: Checkpoint, device: str, dtype: str, weights: Weights = "auto", split_over: int = 1) -> None:
    """Checks that the weights fit into free memory, by the sizes in the safetensors headers. Reads no weight.

    Weights to be quantised must also fit into the host's memory unquantised. The prefix cache is not counted.

    Raises:
        CheckpointTooLarge: the weights in their dtype need more bytes than the device or the host has free.
    """
    if weights != "auto":
        check_fits(checkpoint, "cpu", dtype)
        if device == "cpu":
            return
    manifest = checkpoint.manifest
    itemsize = getattr(torch, manifest.dtype if dtype == "auto" else dtype).itemsize
    # An adapter merges into its base; only log-ratio checkpoints have a reference model.
    paths = (checkpoint.base or checkpoint.path, checkpoint.path / REFERENCE)
    shapes = [tensor_shapes(path) for path in paths]
    needed = sum(
        prod(shape) * (BYTES[weights] if weights != "auto" and may_be_quantised(name, shape) else itemsize)
        for model in shapes
        for name, shape in model.items()
    )
    needed /= split_over
    free = free_bytes(device)
    if free is not None and needed > free:
        raise CheckpointTooLarge(
            f"{manifest.reference} needs {needed / GIB:.1f} GiB on {device} and {free / GIB:.1f} GiB are free"
        )
