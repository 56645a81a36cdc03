"""The forward that the authors of each family describe, over a tiny checkpoint of their layout.

Written from the model cards and repositories of the families, with transformers' own classes and whole texts: they
know nothing of recipes, runs or prefixes. Families that read a language model's logits are in ``authors_of_logits``.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from tests.model_store.authors_of_logits import (
    er_prm_promises,
    llemma_promises,
    make_language_model,
    make_llemma,
    math_shepherd_promises,
    rlhflow_promises,
)
from tests.model_store.authors_of_tags import QWEN_SYSTEM, TAGS
from tests.model_store.family import Family
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    LLAMA_CHAT,
    LLAMA_TOKENS,
    add_head,
    byte_level,
    config_of,
    edit_config,
    floats,
    last_hidden,
    save,
    sentence_piece,
    weights_of,
    whole,
)

TASK = "Janet's ducks lay 16 eggs per day.  How many are left?"
STEPS = ("Step 1: She eats three.", "Step 2: 16 - 3 = 13 eggs\nare left.", "Step 3: наверно 13")


# *ForSequenceClassification over a chat: a score at the last token of each templated prefix of the conversation.


def make_classifier(path: Path, kind: Any, special: Sequence[str], chat: str, *, padding: str = "") -> Tokenizer:
    """``padding`` is the token that the trainer pads with, which may be the one that ends a turn."""
    tokenizer = byte_level(special)
    pad = tokenizer.token_to_id(padding) if padding else None
    model = AutoModelForSequenceClassification.from_config(config_of(kind, tokenizer, num_labels=1, pad_token_id=pad))
    save(path, model, tokenizer, bos=special[0], chat=chat)
    return tokenizer


@torch.inference_mode()
def classified(path: Path, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    return [torch.sigmoid(model(torch.tensor([whole(tokenizer, text)])).logits[0, 0]).item() for text in prompts]


def chatml_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    text = f"<|im_start|>user\n{task}<|im_end|>\n"
    prompts = [text := f"{text}<|im_start|>assistant\n{step}<|im_end|>\n" for step in steps]
    return classified(path, tokenizer, prompts)


def llama_chat_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    text = f"<|begin_of_text|>{header.format('system')}Today Date: 26 Jul 2024\n\n<|eot_id|>"
    text += f"{header.format('user')}{task}<|eot_id|>"
    prompts = [text := f"{text}{header.format('assistant')}{step}<|eot_id|>" for step in steps]
    return classified(path, tokenizer, prompts)


# TRL's stepwise trainer: segments tokenised on their own, the separator's ids after each, class 1 at the last of them.


def make_trl(path: Path) -> Tokenizer:
    tokenizer = sentence_piece()
    model = AutoModelForTokenClassification.from_config(config_of(Qwen2Config, tokenizer, num_labels=2))
    save(path, model, tokenizer, bos="<s>")
    return tokenizer


@torch.inference_mode()
def trl_promises(
    path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str], *, separated: str = "\n"
) -> list[float]:
    separator = whole(tokenizer, separated)
    ids, ends = [tokenizer.token_to_id("<s>"), *whole(tokenizer, task)], []
    for step in steps:
        ids += whole(tokenizer, step) + separator
        ends.append(len(ids) - 1)
    model = AutoModelForTokenClassification.from_pretrained(path).eval()
    return floats(model(torch.tensor([ids])).logits[0].softmax(-1)[ends, 1])


# Qwen2.5-Math-PRM: two linear layers, softmax over two classes at each <extra_0>.


MATH_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def make_qwen_math(path: Path) -> Tokenizer:
    tokenizer = byte_level(CHATML_TOKENS)
    chat = QWEN_SYSTEM.replace("SYSTEM", MATH_SYSTEM.replace("\\", "\\\\")) + CHATML
    save(path, AutoModelForCausalLM.from_config(config_of(Qwen2Config, tokenizer)), tokenizer, chat=chat)
    add_head(path, "Qwen2ForProcessRewardModel", {"score.0": nn.Linear(16, 16), "score.2": nn.Linear(16, 2)})
    auto = {
        "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
    }
    edit_config(path, auto_map=auto)
    return tokenizer


def qwen_math_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    turns = {"system": MATH_SYSTEM, "user": task, "assistant": "<extra_0>".join(steps) + "<extra_0>"}
    ids = whole(tokenizer, "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns.items()))
    weights = weights_of(path)
    first, last = ((weights[f"score.{layer}.weight"], weights[f"score.{layer}.bias"]) for layer in (0, 2))
    hidden = nn.functional.linear(last_hidden_without_map(path, ids), *first).relu()
    probabilities = nn.functional.linear(hidden, *last).softmax(-1)
    return floats(probabilities[torch.tensor(ids) == tokenizer.token_to_id("<extra_0>"), 1])


def last_hidden_without_map(path: Path, ids: Sequence[int]) -> Tensor:
    """The hidden states of the plain model, which the checkpoint's own code would load under the same names."""
    config = json.loads((path / "config.json").read_text())
    config.pop("auto_map", None)
    (path / "config.json").write_text(json.dumps(config))
    return last_hidden(path, ids)


# Skywork-o1-Open-PRM: bos + problem + newline at once, each step on its own and then the newline's id; sigmoid there.


def make_skywork(path: Path) -> Tokenizer:
    tokenizer = byte_level(CHATML_TOKENS)
    save(path, AutoModelForCausalLM.from_config(config_of(Qwen2Config, tokenizer)), tokenizer, bos="<|endoftext|>")
    add_head(path, "Qwen2ForPrmModel", {"v_head.summary": nn.Linear(16, 1)})
    return tokenizer


def skywork_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    ids, ends = whole(tokenizer, "<|endoftext|>" + task + "\n"), []
    for step in steps:
        ids += [*whole(tokenizer, step), whole(tokenizer, "\n")[-1]]
        ends.append(len(ids) - 1)
    return floats(value_head(path, ids)[ends].sigmoid())


def value_head(path: Path, ids: Sequence[int]) -> Tensor:
    weights = weights_of(path)
    return nn.functional.linear(
        last_hidden(path, ids), weights["v_head.summary.weight"], weights["v_head.summary.bias"]
    )[:, 0]


# PQM: a value head at [PRM], which stands after a space and before a newline; no token is put before the text.


def make_pqm(path: Path) -> Tokenizer:
    tokenizer = byte_level(["[PRM]"])
    save(path, AutoModelForCausalLM.from_config(config_of(LlamaConfig, tokenizer)), tokenizer)
    add_head(path, "LlamaForCausalLM", {"v_head.summary": nn.Linear(16, 1)})
    return tokenizer


def pqm_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    query = (
        "Below is an instruction that describes a task.\nWrite a response that appropriately completes the request."
        f"\n\n### Instruction:\n{task}\n\n### Response: Let's think step by step"
    )
    ids = whole(tokenizer, f"{query}\n" + "\n".join(f"{step} [PRM]" for step in steps))
    values = value_head(path, ids)[torch.tensor(ids) == tokenizer.token_to_id("[PRM]")]
    return floats(values.sigmoid())


# QLASS: three linear layers at the token before the last of a Llama 2 chat, whose turns end in " </s><s>".


def make_qlass(path: Path) -> Tokenizer:
    tokenizer = sentence_piece()
    save(path, AutoModelForCausalLM.from_config(config_of(LlamaConfig, tokenizer)), tokenizer, bos="<s>")
    layers = {"mlp.0": nn.Linear(16, 24), "mlp.2": nn.Linear(24, 24), "mlp.4": nn.Linear(24, 1, bias=False)}
    add_head(path, "LlamaForCausalLM", layers, prefix="llama.")
    weights = weights_of(path)
    weights["mlp.4.weight"] = weights["mlp.4.weight"].abs() / 10  # within [0, 1], as values are
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return tokenizer


def qlass_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    weights = weights_of(path)
    plain = path.parent / "without-prefix"
    plain.mkdir(exist_ok=True)
    edit_config_into(path, plain)
    inner = {name.removeprefix("llama."): tensor for name, tensor in weights.items() if name.startswith("llama.")}
    save_file(inner, plain / "model.safetensors", metadata={"format": "pt"})
    text, values = f"[INST] {task} [/INST]", []
    for step in steps:
        text += f"{step} </s><s>"
        x = last_hidden(plain, whole(tokenizer, "<s>" + text))
        for layer in (0, 2):
            x = nn.functional.linear(x, weights[f"mlp.{layer}.weight"], weights[f"mlp.{layer}.bias"]).relu()
        values.append(float((x @ weights["mlp.4.weight"].T)[-2, 0]))
    return [min(1.0, max(0.0, value)) for value in values]


def edit_config_into(path: Path, other: Path) -> None:
    (other / "config.json").write_text((path / "config.json").read_text())


FAMILIES = {
    "chat ML classifier": Family(
        "sequence-classification",
        lambda path: make_classifier(path, Qwen2Config, CHATML_TOKENS, CHATML),
        chatml_promises,
        recognised=True,
    ),
    "Llama 3 classifier": Family(
        "sequence-classification",
        lambda path: make_classifier(path, LlamaConfig, LLAMA_TOKENS, LLAMA_CHAT),
        llama_chat_promises,
        recognised=True,
    ),
    "Llama 3 classifier whose padding ends turns": Family(
        "sequence-classification",
        lambda path: make_classifier(path, LlamaConfig, LLAMA_TOKENS, LLAMA_CHAT, padding="<|eot_id|>"),
        llama_chat_promises,
        recognised=True,
    ),
    "chat ML classifier whose padding is within turns": Family(
        "sequence-classification",
        lambda path: make_classifier(path, Qwen2Config, CHATML_TOKENS, CHATML, padding="<|im_end|>"),
        chatml_promises,
        recognised=True,
    ),
    "TRL with another separator": Family(
        "trl-prm", make_trl, partial(trl_promises, separated="\n\n"), recognised=True, options={"separator": "\n\n"}
    ),
    "TRL": Family("trl-prm", make_trl, trl_promises, recognised=True),
    "Qwen2.5-Math-PRM": Family("qwen-math-prm", make_qwen_math, qwen_math_promises, recognised=True),
    **TAGS,
    "Skywork": Family("skywork-prm", make_skywork, skywork_promises, recognised=True),
    "PQM": Family("pqm", make_pqm, pqm_promises),
    "QLASS": Family("qlass", make_qlass, qlass_promises),
    "Math-Shepherd": Family(
        "math-shepherd",
        lambda path: make_language_model(path, MistralConfig, sentence_piece(), bos="<s>", sliding_window=None),
        math_shepherd_promises,
    ),
    "RLHFlow": Family(
        "rlhflow",
        lambda path: make_language_model(
            path, LlamaConfig, byte_level(LLAMA_TOKENS), bos="<|begin_of_text|>", chat=LLAMA_CHAT
        ),
        rlhflow_promises,
    ),
    "ER-PRM": Family(
        "er-prm",
        lambda path: make_language_model(path, LlamaConfig, byte_level(LLAMA_TOKENS), bos="<|begin_of_text|>"),
        er_prm_promises,
    ),
    "Math-Shepherd's reading of Gemma 2, soft-capped": Family(
        "math-shepherd",
        lambda path: make_language_model(
            path, Gemma2Config, sentence_piece("first"), bos="<s>", final_logit_softcapping=2.0, query_pre_attn_scalar=8
        ),
        math_shepherd_promises,
    ),
    "Llemma": Family("llemma", make_llemma, llemma_promises),
}
