"""The forward of families whose steps end in a tag of white space or in a chat's turn, as their authors' code has it.

Texts are tokenised by transformers' own tokenizer over all files of the checkpoint, special tokens added by it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from tests.model_store.authors_of_logits import at_tag, make_language_model, pair_at
from tests.model_store.family import Family
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    CORPUS,
    LLAMA_TOKENS,
    add_head,
    byte_level,
    config_of,
    floats,
    last_hidden,
    save,
    weights_of,
    whole,
)

TAGGED = [*CORPUS, *["left. \n\n\n\nStep", "left. \n\n\n\n\n Step", "per day.\n\nStep"] * 3]
QWEN_SYSTEM = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nSYSTEM<|im_end|>\n' }}{% endif %}"
"""The system text that a template puts into a chat without one, as Qwen2.5's templates do."""


def tagged(special: Sequence[str], *, bos: str = "") -> Tokenizer:
    """A tokenizer with tags of white space, which puts ``bos`` before each text by itself."""
    tokenizer = byte_level(special, TAGGED)
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def encoded(path: Path, text: str) -> list[int]:
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(path)
    return list(tokenizer.encode(text))


# VersaPRM, Llama-PRM800K and Qwen-PRM800K: "-" and "+" at each " \n\n\n\n"; a Llama tokenizer adds its beginning token.


def make_llama_versaprm(path: Path) -> Tokenizer:
    bos = LLAMA_TOKENS[0]
    return make_language_model(path, LlamaConfig, tagged(LLAMA_TOKENS, bos=bos), bos=bos)


def make_qwen_versaprm(path: Path) -> Tokenizer:
    return make_language_model(path, Qwen2Config, tagged(CHATML_TOKENS), bos="", chat=CHATML)


def versaprm_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    text = f"{task.strip()} \n\n" + "".join(f"{step.strip()} \n\n\n\n" for step in steps)
    ids, (bad, good) = encoded(path, text), (whole(tokenizer, sign)[0] for sign in "-+")
    return [1 - bad_one for bad_one in pair_at(path, ids, [bad, good], at_tag(tokenizer, ids, " \n\n\n\n"))]


# OpenR's Math-psa: " +" and " -" at each " \n\n\n\n\n", after which a space follows.


def openr_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    tag = " \n\n\n\n\n "
    ids = encoded(path, f"{task} " + tag.join(step.strip() for step in steps) + tag)
    good, bad = whole(tokenizer, " + -")
    return pair_at(path, ids, [good, bad], at_tag(tokenizer, ids, " \n\n\n\n\n"))


# ReasonFlux-PRM: Qwen2.5-Math-PRM's head over the checkpoint's own chat template, whose system text is another.


def make_reasonflux(path: Path) -> Tokenizer:
    tokenizer = byte_level(CHATML_TOKENS)
    chat = QWEN_SYSTEM.replace("SYSTEM", "You are a helpful assistant.") + CHATML
    save(path, AutoModelForCausalLM.from_config(config_of(Qwen2Config, tokenizer)), tokenizer, chat=chat)
    add_head(path, "Qwen2ForProcessRewardModel", {"score.0": nn.Linear(16, 16), "score.2": nn.Linear(16, 2)})
    return tokenizer


@torch.inference_mode()
def reasonflux_promises(path: Path, tokenizer: Tokenizer, task: str, steps: Sequence[str]) -> list[float]:
    fast: Any = PreTrainedTokenizerFast.from_pretrained(path)
    answer = "<extra_0>".join(steps) + "<extra_0>"
    messages = [{"role": "user", "content": task}, {"role": "assistant", "content": answer}]
    ids = list(fast.encode(fast.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)))
    weights = weights_of(path)
    first, last = ((weights[f"score.{layer}.weight"], weights[f"score.{layer}.bias"]) for layer in (0, 2))
    hidden = nn.functional.linear(last_hidden(path, ids), *first).relu()
    probabilities = nn.functional.linear(hidden, *last).softmax(-1)
    return floats(probabilities[torch.tensor(ids) == tokenizer.token_to_id("<extra_0>"), 1])


TAGS = {
    "ReasonFlux": Family("reasonflux-prm", make_reasonflux, reasonflux_promises),
    "VersaPRM": Family("versaprm", make_llama_versaprm, versaprm_promises),
    "Qwen-PRM800K": Family("versaprm", make_qwen_versaprm, versaprm_promises),
    "OpenR": Family("openr", make_qwen_versaprm, openr_promises),
}
