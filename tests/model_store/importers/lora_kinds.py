"""Kinds of LoRA adapter that peft writes, each scored by peft and, imported, here: equal, or refused by name.

peft is no dependency of the project, so this runs where it is installed:
``python -m tests.model_store.importers.lora_kinds``. It prints a row per kind and fails if a kind is imported with
other scores than peft's.
"""

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from transformers import AutoModelForSequenceClassification, GPT2Config, Qwen2Config

from model_store.errors import CheckpointError
from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from model_store.network.model import load_model, score_rows
from tests.model_store.authors import make_classifier
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS

IDS: Final = list(range(5, 45))
LINEAR: Final = ["q_proj", "down_proj"]
KINDS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "random start": {"init_lora_weights": False},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva"},
    "all linear layers": {"target_modules": "all-linear"},
    "some layers": {"layers_to_transform": [1]},
    "saved head": {"modules_to_save": ["score"]},
    "saved embeddings": {"modules_to_save": ["score", "embed_tokens"]},
    "Conv1D": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "mica": {"init_lora_weights": "mica"},
    "DoRA": {"use_dora": True},
    "rank pattern": {"rank_pattern": {"q_proj": 2}},
    "alpha pattern": {"alpha_pattern": {"q_proj": 2}},
    "bias of LoRA": {"bias": "lora_only"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "some tokens": {"trainable_token_indices": [5, 7]},
    "aLoRA": {"alora_invocation_tokens": [7, 8]},
    "parameters": {"target_parameters": ["q_proj.weight"], "target_modules": ["down_proj"]},
}


def main() -> None:
    wrong = 0
    for name, wanted in KINDS.items():
        with TemporaryDirectory() as scratch:
            difference = compare(Path(scratch), wanted)
        wrong += isinstance(difference, float) and difference > 1e-5
        print(f"{name:20} {difference if isinstance(difference, str) else f'differs by {difference:.1e}'}")
    sys.exit(1 if wrong else 0)


def compare(path: Path, wanted: dict[str, Any]) -> float | str:
    """The difference from peft's score, or the sentence with which one of the two refuses the kind."""
    peft = import_module("peft")
    base, adapter = path / "base", path / "adapter"
    make_classifier(base, GPT2Config if "fan_in_fan_out" in wanted else Qwen2Config, CHATML_TOKENS, CHATML)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "SEQ_CLS", "target_modules": LINEAR, **wanted}
    try:
        write_adapter(peft, base, adapter, settings)
        expected = peft_score(peft, base, adapter)
    except (RuntimeError, ValueError) as error:
        return f"peft: {' '.join(str(error).split())[:100]}"
    try:
        options = ImportOptions("lora", "1", context_length=64)
        checkpoint = add_checkpoint(Store(path / "store"), adapter, options, base).checkpoint
    except CheckpointError as error:
        return f"refused: {str(error).removeprefix(str(adapter))}"
    ((raw,),) = score_rows(load_model(checkpoint, "cpu", "auto"), [IDS], [[len(IDS) - 1]])
    return abs(raw - expected)


def write_adapter(peft: Any, base: Path, adapter: Path, settings: dict[str, Any]) -> None:
    """Saves an adapter whose trained tensors are far from their start."""
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForSequenceClassification.from_pretrained(base), peft.LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(torch.randn_like(parameter) / 4)
    model.save_pretrained(adapter)


@torch.inference_mode()
def peft_score(peft: Any, base: Path, adapter: Path) -> float:
    model = AutoModelForSequenceClassification.from_pretrained(base)
    return float(peft.PeftModel.from_pretrained(model, adapter).eval()(torch.tensor([IDS])).logits[0, 0])


if __name__ == "__main__":
    main()
