"""The forward of families that read the logits of a language model, as their authors describe it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.model_store.tiny_checkpoints import (
    config_of,
    floats,
    logits,
    save,
    sentence_piece,
    weights_of,
    whole,
)

# Math-Shepherd, ER-PRM: softmax of two tokens' logits at each step tag; RLHFlow: at the token before its "+".


def make_language_model(
    path: Path, kind: Any, tokenizer: Tokenizer, *, bos: str, chat: str | None = None, **more: Any
) -> Tokenizer:
    save(path, AutoModelForCausalLM.from_config(config_of(kind, tokenizer, **more)), tokenizer, bos=bos, chat=chat)
    return tokenizer


def pair_at(path: Path, ids: Sequence[int], pair: Sequence[int], where: Sequence[int]) -> list[float]:
    return floats(logits(path, ids)[:, list(pair)].softmax(-1)[list(where), 0])


def at_tag(tokenizer: Tokenizer, ids: Sequence[int], tag: str) -> list[int]:
    return [index for index, token in enumerate(ids) if token == whole(tokenizer, tag)[-1]]


def math_shepherd_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    ids = whole(tokenizer, f"<s>{task} " + "\n".join(f"{step} ки" for step in steps))
    return pair_at(path, ids, whole(tokenizer, "+ -"), at_tag(tokenizer, ids, "ки"))


def er_prm_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    ids = whole(tokenizer, f"<|begin_of_text|>{task} " + "".join(f"{step} ки" for step in steps))
    pair = [whole(tokenizer, " +")[-1], whole(tokenizer, " -")[-1]]
    return pair_at(path, ids, pair, at_tag(tokenizer, ids, " ки"))


def rlhflow_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    """Promises step by step, read at position -3 of the templated conversation."""
    pair = [whole(tokenizer, "+")[-1], whole(tokenizer, "-")[-1]]
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    text = f"<|begin_of_text|>{header.format('system')}Today Date: 26 Jul 2024\n\n<|eot_id|>"
    promises = []
    for index, step in enumerate(steps):
        said = step.strip() if index else f"{task} {step.strip()}"
        text += f"{header.format('user')}{said.strip()}<|eot_id|>"  # the chat template trims each turn
        text += f"{header.format('assistant')}+<|eot_id|>"
        ids = whole(tokenizer, text)
        promises += pair_at(path, ids, pair, [len(ids) - 3])
    return promises


# Llemma: sigmoid of the mean of all logits, at the first of the two newlines after each step.


def make_llemma(path: Path) -> Tokenizer:
    tokenizer = make_language_model(path, LlamaConfig, sentence_piece(), bos="<s>")
    weights = weights_of(path)
    weights["lm_head.weight"] += torch.randn(16, generator=torch.Generator().manual_seed(3)) / 2
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return tokenizer


def llemma_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    ids = whole(tokenizer, f"<s># Question\n\n{task}\n\n# Solution\n\n" + "".join(f"{step}\n\n" for step in steps))
    newlines = whole(tokenizer, "\n\n")[1:]
    found = [index for index in range(len(ids)) if ids[index : index + 2] == newlines]
    return floats(logits(path, ids).mean(-1)[found[-len(steps) :]].sigmoid())
