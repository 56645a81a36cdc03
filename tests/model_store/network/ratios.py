"""Pairs of tiny language models, and the implicit process rewards that their own logits give."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, Qwen2Config

from agentprm.types import Step, Trajectory
from model_store.format.store import Store
from model_store.importers.importer import Imported, ImportOptions, add_checkpoint
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    LLAMA_TOKENS,
    byte_level,
    logits,
    weights_of,
)

BETA = 0.05
STEPS = (
    Step("", "Step 1: She eats three."),
    Step("There are 13 eggs.", "\nStep 2: 16 - 3 = 13\neggs"),
    Step("", "наверно 13"),
)
TRAJECTORIES = [
    Trajectory("How many are left?", STEPS),
    Trajectory("How many eggs?", STEPS[1:2]),
    Trajectory("How many eggs are left per day?", (Step("", "13."), Step("So?", "She has 13 eggs left.\n"))),
]


def make_pair(tmp_path: Path, chat: str = CHATML) -> Tokenizer:
    kind, special = (Qwen2Config, CHATML_TOKENS) if chat == CHATML else (LlamaConfig, LLAMA_TOKENS)
    for name in ("policy", "reference"):
        tokenizer = make_language_model(tmp_path / name, kind, byte_level(special), bos=special[0], chat=chat)
    noise = torch.Generator().manual_seed(5)
    changed = {
        key: tensor + 0.1 * torch.randn(tensor.shape, generator=noise)
        for key, tensor in weights_of(tmp_path / name).items()
    }
    save_file(changed, tmp_path / "reference" / "model.safetensors", metadata={"format": "pt"})
    return tokenizer


def add(tmp_path: Path, preset: str | None = "implicit-prm", beta: float | None = BETA, **more: Any) -> Imported:
    wanted = {"reference": tmp_path / "reference", "beta": beta, "preset": preset} | more
    return add_checkpoint(Store(tmp_path / "store"), tmp_path / "policy", ImportOptions("ratio", "1", **wanted))


Pieces = list[tuple[str, bool]]
"""Texts, and whether the agent said them; its end-of-turn token is its own too."""


def chatml(trajectory: Trajectory) -> list[Pieces]:
    steps, before = [], f"<|im_start|>user\n{trajectory.task}<|im_end|>\n"
    for step in trajectory.steps:
        before += f"<|im_start|>user\n{step.observation}<|im_end|>\n" if step.observation else ""
        steps.append([(f"{before}<|im_start|>assistant", False), (f"\n{step.action}<|im_end|>", True)])
        before = "\n"
    return steps


def llama(trajectory: Trajectory) -> list[Pieces]:
    header = "<|start_header_id|>{}<|end_header_id|>"
    before = f"<|begin_of_text|>{header.format('system')}\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    before, steps = f"{before}{header.format('user')}\n\n{trajectory.task}<|eot_id|>", []
    for step in trajectory.steps:
        before += f"{header.format('user')}\n\n{step.observation}<|eot_id|>" if step.observation else ""
        steps.append([(before + header.format("assistant"), False), (f"\n\n{step.action.strip()}<|eot_id|>", True)])
        before = ""
    return steps


def one_turn(trajectory: Trajectory) -> list[Pieces]:
    """Steps follow each other in one turn of the assistant, as EurusPRM's do; an observation ends it."""
    steps, before = [], f"<|im_start|>user\n{trajectory.task}<|im_end|>\n<|im_start|>assistant"
    opening = "\n"
    for step in trajectory.steps:
        pieces = [(before, False)]
        if step.observation:
            seen = f"\n<|im_start|>user\n{step.observation}<|im_end|>\n<|im_start|>assistant"
            pieces += [(f"{opening}<|im_end|>", True), (seen, False)]
            opening = "\n"
        steps.append([*pieces, (f"{opening}{step.action}\n\n", True)])
        before = opening = ""
    return steps


def implied(tmp_path: Path, tokenizer: Tokenizer, steps: Sequence[Pieces]) -> list[float]:
    """The log-ratio up to the end of each step, from both language models' own logits."""
    tokenizer.encode_special_tokens = False
    ids, own, ends = list[int](), list[bool](), list[int]()
    for pieces in steps:
        for text, mine in pieces:
            new = tokenizer.encode(text, add_special_tokens=False).ids
            ids, own = ids + new, own + [mine] * len(new)
        ends.append(len(ids))
    sides = [
        logits(tmp_path / name, ids)[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        for name in ("policy", "reference")
    ]
    sums = [0.0, *accumulate(((sides[0] - sides[1]) * torch.tensor(own[1:])).tolist())]
    return [BETA * sums[end - 1] for end in ends]
