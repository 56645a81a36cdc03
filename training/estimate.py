"""What a run will need, from its files and the configuration of its base: memory, and time by a measured product."""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from training.base_model import base_text
from training.rollouts.rollout import Rollout
from training.run import Run, split_and_encode

GIB: Final = 2**30
_SECONDS: Final = 0.5
_STATES: Final = 12
"""Bytes of a trained weight besides itself: its gradient and the two moments of AdamW, in float32."""


class _Size(NamedTuple):
    weights: int
    in_products: int  # weights of linear layers, each used once a token
    trained: int
    activations: int  # numbers kept for the backward pass of one token, roughly


def estimate(plan: Run, rollouts: Sequence[Rollout]) -> str:
    """Returns lines on tokens, memory and time. Memory of activations and time are rough, within a factor of two or so.

    Raises:
        AgentPRMError: the run would be refused.
    """
    with base_text(plan.base, plan.store, context_length=plan.context_length) as text:
        parts = split_and_encode(plan, rollouts, text)
        config = AutoConfig.from_pretrained(text.checkpoint.path, local_files_only=True)
    with torch.device("meta"):
        backbone: nn.Module = AutoModel.from_config(config)
    recipe = plan.recipe
    size = _size(backbone, recipe.lora, checkpointing=recipe.gradient_checkpointing)
    itemsize = 4 if recipe.lora is None else getattr(torch, recipe.dtype).itemsize
    longest = max(example.tokens for example in parts.train)
    at_once = max(longest, min(recipe.tokens_per_forward, sum(example.tokens for example in parts.train)))
    weights, states = size.weights * itemsize, size.trained * _STATES
    kept = size.activations * at_once * getattr(torch, recipe.dtype).itemsize
    tokens = sum(example.tokens for example in parts.train)
    seconds = tokens * size.in_products * _products(plan) / _speed(plan)
    lines = [
        f"{len(parts.train)} trajectories to train on, {tokens:,} tokens an epoch, the longest has {longest:,} tokens",
        f"{len(parts.validation)} trajectories choose the epoch, {len(parts.held_out)} are held out",
        f"{size.weights:,} weights, {size.trained:,} trained",
        f"memory: about {(weights + states + kept) / GIB:.1f} GiB",
        f"  weights {weights / GIB:.1f}, optimiser {states / GIB:.1f}, {at_once:,} tokens at once {kept / GIB:.1f}",
        f"time: about {_duration(seconds)} an epoch, at most {_duration(seconds * recipe.epochs)}",
    ]
    return "\n".join(lines)


def _size(backbone: nn.Module, rank: int | None, *, checkpointing: bool) -> _Size:
    linears = list(_linears(backbone))
    weights = sum(weight.numel() for weight in backbone.parameters())
    adapters = (rank or 0) * sum(layer.in_features + layer.out_features for layer in linears)
    outputs = sum(layer.in_features + layer.out_features for layer in linears)
    layers = max(1, getattr(backbone.config, "num_hidden_layers", 1))
    hidden = getattr(backbone.config, "hidden_size", 0)
    kept = outputs // layers + layers * hidden if checkpointing else outputs
    return _Size(weights, sum(layer.weight.numel() for layer in linears), adapters if rank else weights, kept)


def _linears(backbone: nn.Module) -> Iterator[nn.Linear]:
    return (module for module in backbone.modules() if isinstance(module, nn.Linear))


def _products(plan: Run) -> int:
    """Operations per weight and token: two for each of the forward, the inputs' and the weights' gradients."""
    backward = 4 if plan.recipe.lora is None else 2
    return 2 + backward + (2 if plan.recipe.gradient_checkpointing else 0)


def _speed(plan: Run) -> float:
    """Operations a second of a matrix product in the run's arithmetic on this device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.ones(1024, 1024, dtype=getattr(torch, plan.recipe.dtype), device=device)
    rows @ rows
    times, started = 0, perf_counter()
    while perf_counter() - started < _SECONDS:
        (rows @ rows)[0, 0].item()
        times += 1
    return times * 2 * 1024**3 / (perf_counter() - started)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"
