"""Tiny random checkpoints in the layouts that families of process reward models are published in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import Split
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig

CORPUS = [
    "Step 1: Janet's ducks lay 16 eggs per day. ки",
    "Step 2: She eats three, so she has 16 - 3 = 13 eggs left. + - ки",
    "How many are left?\n\n### Response: She has 13 eggs left.\n\n# Solution\n\nper day.\n",
    "day.  She  has  13  eggs  ",
    "user system assistant Please reason step by step, and put your final answer within the box. Question Solution",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<extra_0>")
LLAMA_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def byte_level(special: Sequence[str], corpus: Sequence[str] = CORPUS) -> Tokenizer:
    """A tokenizer like Qwen's and Llama 3's: newlines grow into the punctuation before them."""
    tokenizer = Tokenizer(models.BPE())
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    whole_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([Split(Regex(words), "isolated"), whole_words])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(corpus) * 20, trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def sentence_piece(prepend: str = "normalizer") -> Tokenizer:
    """A tokenizer like Llama 2's: no words, "▁" for a space and before a text, bytes for what is unknown."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    lines = [line for text in CORPUS for line in text.splitlines()]  # a newline is a byte to them
    trained.train_from_iterator(lines * 20, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    bytes_ = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = dict.fromkeys([*bytes_, *sorted(model["vocab"], key=model["vocab"].get)])
    merges = [tuple(merge) for merge in model["merges"]]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    if prepend == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def config_of(kind: Any, tokenizer: Tokenizer, **more: Any) -> PreTrainedConfig:
    """A tiny configuration of a kind, with more rows than tokens, as published ones have."""
    shape = {
        "vocab_size": tokenizer.get_vocab_size() + 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        "dtype": "float32",
    }
    config: PreTrainedConfig = kind(**{**shape, **more})
    return config


def save(
    path: Path, model: nn.Module, tokenizer: Tokenizer, *, bos: str | None = None, chat: str | None = None
) -> None:
    """Weights that make scores depend on every token before, and the tokenizer's two files."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    any_model: Any = model
    any_model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "chat_template": chat}
    (path / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def add_head(path: Path, architecture: str, layers: dict[str, nn.Linear], prefix: str = "") -> None:
    """Adds head tensors as the authors' own classes save them; ``prefix`` precedes the names of the model's tensors."""
    weights = {prefix + name: tensor for name, tensor in load_file(path / "model.safetensors").items()}
    for name, layer in layers.items():
        spread = layer.in_features**-0.5
        torch.nn.init.normal_(layer.weight, std=spread, generator=torch.Generator().manual_seed(2))
        weights |= {f"{name}.{part}": tensor for part, tensor in layer.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    edit_config(path, architectures=[architecture])


def edit_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def weights_of(path: Path) -> dict[str, Tensor]:
    return load_file(path / "model.safetensors")


@torch.inference_mode()
def last_hidden(path: Path, ids: Sequence[int]) -> Tensor:
    """[T, H], by the plain model class."""
    model = AutoModel.from_pretrained(path).eval()
    hidden: Tensor = model(torch.tensor([ids])).last_hidden_state[0]
    return hidden


@torch.inference_mode()
def logits(path: Path, ids: Sequence[int]) -> Tensor:
    """[T, V], by the plain language model."""
    out: Tensor = AutoModelForCausalLM.from_pretrained(path).eval()(torch.tensor([ids])).logits[0]
    return out


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text at once, special tokens recognised and none added."""
    tokenizer.encode_special_tokens = False
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def floats(values: Tensor) -> list[float]:
    return [float(value) for value in values]
