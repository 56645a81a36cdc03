"""The text tower of a composite checkpoint: a language model beside vision or audio towers.

Text alone takes the same way through the whole model and through its text tower: token embeddings, decoder, output
layer. Only kinds for which tests show this are imported. Their other towers are left out.
"""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from transformers import CONFIG_MAPPING

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line

TOWERS: Final = frozenset(
    {
        "gemma3",
        "gemma4",
        "glm4v",
        "idefics3",
        "internvl",
        "llama4",
        "llava",
        "llava_next",
        "llava_onevision",
        "mistral3",
        "qwen2_5_vl",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
    }
)
_KEPT: Final = ("id2label", "label2id", "problem_type")
_TEXT: Final = (
    r"model\.language_model\.|language_model\.model\.|model\.text_model\.|language_model\.|text_model\.|model\."
)
_LAYER: Final = re.compile(rf"((?:.*?\.)??({_TEXT}))layers\.0\.")
_LEFT_OUT: Final = re.compile(
    r"(?:model\.)?(visual|vision_tower|vision_model|audio_tower|embed_vision|embed_audio|multi_modal_projector|connector"
    r"|image_newline|mtp)\b"
)


class TextNames(NamedTuple):
    """New name of each tensor that is kept, and the modules whose tensors are left out."""

    renamed: dict[str, str]
    left_out: list[str]


def text_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of a composite's text tower, with the labels of the whole; None for a plain model.

    Raises:
        CheckpointError: the tower is not known to stand alone.
        CheckpointCorrupt: the configuration cannot be read.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        return None
    kind = CONFIG_MAPPING[model_type]
    if "text_config" not in kind.sub_configs:
        return None
    if model_type not in TOWERS:
        raise CheckpointError(
            f"{model_type} is made of several towers, and its text tower is not known to score alone as within the "
            f"whole; imported are those of {', '.join(sorted(TOWERS))}"
        )
    try:
        whole = kind.from_dict(dict(config))
        found: dict[str, Any] = whole.text_config.to_dict()
    except Exception as error:
        raise CheckpointCorrupt(f"config.json cannot be read: {one_line(str(error), 300)}") from error
    if found.get("quantization_config"):
        raise CheckpointError(f"the text tower of {model_type} is quantised; only plain weights are served")
    names = config.get("architectures")
    found["architectures"] = [
        str(name).replace("ForConditionalGeneration", "ForCausalLM")
        for name in (names if isinstance(names, list) else [])
    ]
    found["dtype"] = config.get("dtype") or config.get("torch_dtype") or found.get("dtype")
    found["tie_word_embeddings"] = getattr(whole, "tie_word_embeddings", False)
    return found | {name: config[name] for name in _KEPT if name in config}


def text_names(names: Iterable[str]) -> TextNames:
    """Sorts the tensors of a composite into those of its text tower and heads, under plain names, and the rest.

    Raises:
        CheckpointError: the text tower is not found among them, or a tensor belongs to neither.
    """
    listed = sorted(names)
    found = {match.groups() for name in listed if not _LEFT_OUT.match(name) and (match := _LAYER.match(name))}
    if len(found) != 1:
        raise CheckpointError("the tensors of the text tower cannot be told from the others by their names")
    ((whole, tower),) = found
    wrapper, renamed, left_out = whole.removesuffix(tower), dict[str, str](), set[str]()
    for name in listed:
        inner = name.removeprefix(wrapper)
        if match := _LEFT_OUT.match(inner):
            left_out.add(match[1])
        elif inner.startswith(tower):
            renamed[name] = f"model.{inner.removeprefix(tower)}"
        elif inner.startswith(("language_model.lm_head.", "model.lm_head.")):
            renamed[name] = inner.partition(".")[2]
        elif inner.startswith("model."):
            raise CheckpointError(f"{one_line(name)} belongs to no known tower of the checkpoint")
        else:
            renamed[name] = inner
    return TextNames(renamed, sorted(left_out))
