"""Quantised weights by torchao, and their error in score, which is measured on each model when it is quantised.

Only linear layers of the backbones are quantised; embeddings, norms and heads keep their weights.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from math import sqrt
from statistics import fmean
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError
from model_store.network.model import RatioModel, RewardModel, score_rows

Bits = Literal["int8", "int4"]

GROUP: Final = 32
"""Inputs that share a scale under int4: torchao's smallest group, for the least error. int8 has one scale a row."""
BYTES: Final[dict[Bits, float]] = {"int8": 1.0, "int4": 0.5 + 4 / GROUP}
"""Bytes of a quantised weight; those of int4 include its share of a scale and a zero point in bfloat16."""
SEQUENCES: Final = 8
LENGTH: Final = 64
"""Random sequences that the cost is measured on, and tokens of each."""


class ScoreError(NamedTuple):
    """Differences of scores by quantised weights from those by full weights in the same dtype.

    ``promise_*`` are differences of promises. ``raw_*`` are of raw scores, in standard deviations of the full ones.
    """

    promise_rms: float
    promise_max: float
    raw_rms: float
    raw_max: float
    measured_on: str

    def __str__(self) -> str:
        return (
            f"promise off by {self.promise_rms:.2g} (rms), {self.promise_max:.2g} at most; "
            f"raw by {self.raw_rms:.2g} and {self.raw_max:.2g} standard deviations; on {self.measured_on}"
        )


def quantise(
    model: RewardModel, bits: Bits, promise: Callable[[float], float], *, device: str, longest: int
) -> ScoreError:
    """Quantises a model in place and moves it to the device, a layer at a time; returns the cost in score.

    Args:
        model: a model with its full weights, on the host.
        bits: the bits of a weight.
        promise: the checkpoint's map from raw score to promise.
        device: the device to run on, "cpu" or one of CUDA.
        longest: most tokens of a sequence.

    Raises:
        AgentPRMError: torchao is missing, or has no kernel for this device and dtype.
        CheckpointError: no layer can be quantised.
    """
    _torchao_module("quantization", bits)  # raises before scores are computed
    token_ids = _random_tokens(model, min(LENGTH, longest))
    full = _scores(model, token_ids)
    quantise_layers(model, bits, device=device)
    measured_on = f"{len(full)} tokens in {SEQUENCES} sequences of random ones"
    return score_error(full, _scores(model, token_ids), promise, measured_on)


def quantise_layers(model: RewardModel, bits: Bits, *, device: str) -> int:
    """Quantises in place and moves the model to the device; returns the number of quantised layers.

    Raises as ``quantise`` does.
    """
    torchao = _torchao_module("quantization", bits)
    config, count = _config(torchao, bits, device, model.backbone.dtype), 0
    for backbone in model.backbones():
        count += sum(_suits(layer, bits) for layer in backbone.modules())
        torchao.quantize_(backbone, config, lambda layer, _: _suits(layer, bits), device=device)
    if not count:
        raise CheckpointError(f"{type(model.backbone).__name__} has no linear layer that {bits} weights suit")
    model.to(device)
    return count


def score_error(
    full: Sequence[float], quantised: Sequence[float], promise: Callable[[float], float], measured_on: str
) -> ScoreError:
    """The differences between raw scores by full and by quantised weights at the same tokens."""
    spread = float(torch.tensor(full, dtype=torch.float64).std()) or 1.0
    raw = [abs(exact - rounded) / spread for exact, rounded in zip(full, quantised, strict=True)]
    promises = [abs(promise(exact) - promise(rounded)) for exact, rounded in zip(full, quantised, strict=True)]
    return ScoreError(_rms(promises), max(promises), _rms(raw), max(raw), measured_on)


def dtype_of(dtype: str, bits: Bits | Literal["auto"]) -> str:
    """The backbone's dtype under these weights: torchao's fast 4-bit kernels take bfloat16 only.

    Raises:
        AgentPRMError: the setting names another dtype.
    """
    if bits != "int4" or dtype == "bfloat16":
        return dtype
    if dtype == "auto":
        return "bfloat16"
    raise AgentPRMError(f"int4 weights go with bfloat16, not {dtype}; int8 ones go with any dtype")


def may_be_quantised(name: str, shape: Sequence[int]) -> bool:
    """Returns whether a tensor's name and shape look like a linear layer of the backbone, to estimate sizes."""
    excluded = ("embed", "wte", "wpe", "head", "score")
    return len(shape) == 2 and name.endswith("weight") and not any(word in name for word in excluded)


def _torchao_module(name: str, bits: Bits) -> Any:
    try:
        return import_module(f"torchao.{name}")
    except ImportError as error:
        raise AgentPRMError(
            f"{bits} weights need torchao, which is absent or of an unsupported version; "
            "pip install 'agentprm[quant]' brings it"
        ) from error


def _config(torchao: Any, bits: Bits, device: str, dtype: torch.dtype) -> Any:
    if bits == "int8":
        return torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    dtype_of(str(dtype).removeprefix("torch."), bits)
    if device == "cpu":
        prototype = _torchao_module("prototype.quantization.int4", bits)
        return prototype.PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    if torch.cuda.get_device_capability(device)[0] < 8:
        raise AgentPRMError(f"int4 weights need compute capability 8.0 or more, which {device} has not; int8 would do")
    return torchao.Int4WeightOnlyConfig(
        group_size=GROUP, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


def _suits(layer: nn.Module, bits: Bits) -> bool:
    """Returns whether a layer can be quantised; a subclass of ``nn.Linear`` may compute something else."""
    if type(layer) is not nn.Linear:
        return False
    return bits == "int8" or (layer.in_features % GROUP == 0 and layer.out_features % 16 == 0)


def _random_tokens(model: RewardModel, length: int) -> list[list[int]]:
    """Token ids [sequences][tokens]. For a log-ratio they begin with ``opens``: only the agent's tokens count."""
    random = torch.Generator().manual_seed(0)
    opens = list(model.head.opens) if isinstance(model, RatioModel) else []
    rows = torch.randint(model.vocabulary, (SEQUENCES, max(length - len(opens), 1)), generator=random).tolist()
    return [[*opens, *row] for row in rows]


def _scores(model: RewardModel, token_ids: Sequence[Sequence[int]]) -> list[float]:
    """Raw scores at every token of all sequences, joined."""
    rows = score_rows(model, token_ids, [range(len(ids)) for ids in token_ids])
    return [raw for row in rows for raw in row]


def _rms(values: Sequence[float]) -> float:
    return sqrt(fmean(value * value for value in values))
