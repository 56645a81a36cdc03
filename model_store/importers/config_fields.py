"""The fields of a checkpoint's files that change a score, and what becomes of each: followed, or refused by name.

``FIELDS`` is the table of docs/checkpoints.md. Nothing in a file that changes a score may be ignored.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from transformers import CONFIG_MAPPING

from model_store.errors import CheckpointError, one_line
from model_store.network.head_loading import SCALED_LOGITS

SCORING_WORDS: Final = re.compile(
    r"(?:^|_)(?:rewards?|scores?|scoring|logits?|pool\w*|mrl|calibrat\w*|normali[sz]e|v_?head|value_head)(?:_|$)"
)
"""Parts of names that speak of scores. A field that no class of transformers knows is refused if it has one."""


@dataclass(frozen=True, slots=True)
class Field:
    """Fields of a file, what they change, and what is done with them.

    ``refused`` says of a value whether it is refused, for the ``reason``; None if no value is refused by itself.
    """

    file: str
    names: tuple[str, ...]
    changes: str
    handling: str
    refused: Callable[[Any], bool] | None = None
    reason: str = ""


def _is_set(value: Any) -> bool:
    return value not in (None, False, 0, "", [], {})


def _differs(usual: float) -> Callable[[Any], bool]:
    return lambda value: value is not None and value != usual


_CONFIG: Final = "config.json"
_TOKENIZER: Final = "tokenizer_config.json"
_ADAPTER: Final = "adapter_config.json"

FIELDS: Final = (
    Field(
        _CONFIG,
        ("quantization_config", "compression_config"),
        "how weights are stored",
        "refused",
        lambda value: value is not None,
        "the weights are quantised, and only plain ones are served",
    ),
    Field(
        _CONFIG,
        ("is_encoder_decoder",),
        "which model reads the text",
        "refused if true",
        _is_set,
        "only models that read from left to right are served",
    ),
    Field(
        _CONFIG,
        ("use_bidirectional_attention",),
        "whether a token sees later ones",
        "refused if true",
        _is_set,
        "a step's score would change with later steps",
    ),
    Field(
        _CONFIG,
        ("is_causal",),
        "the same",
        "refused if false",
        lambda value: value is False,
        "a step's score would change with later steps",
    ),
    Field(
        _CONFIG,
        ("pruned_heads",),
        "which attention heads there are",
        "refused if it names any",
        _is_set,
        "save the model with its heads pruned",
    ),
    Field(
        _CONFIG,
        ("use_mrl",),
        "how much of the hidden state a head reads",
        "refused if true",
        _is_set,
        "no head here reads a part of the hidden state",
    ),
    Field(
        _CONFIG,
        ("normalize_reward", "mean", "std"),
        "the scale of a score (OpenRLHF)",
        "refused unless they change nothing (mean 0, std 1); give a `calibration` in a recipe instead",
    ),
    Field(
        _CONFIG,
        SCALED_LOGITS,
        "the logits of a language model",
        "refused under a head that reads logits; other heads do not see them",
    ),
    Field(
        _CONFIG,
        ("final_logit_softcapping",),
        "the logits of a language model",
        "followed; refused under a mean of all logits",
    ),
    Field(
        _CONFIG,
        ("pad_token_id",),
        "where a sequence classifier reads",
        "followed: `score.pad_token_id`, where an action can end in that token",
    ),
    Field(
        _CONFIG,
        ("num_labels", "id2label", "problem_type"),
        "what the outputs of a head mean",
        "followed if they say what is usual for the architecture; else a preset or recipe must say it",
    ),
    Field(
        _CONFIG,
        ("dtype", "torch_dtype", "max_position_embeddings", "tie_word_embeddings", "architectures"),
        "numbers, lengths, the output layer, the family",
        "followed",
    ),
    Field(
        _CONFIG,
        ("rope_scaling", "rope_parameters", "sliding_window", "attention_chunk_size", "attn_logit_softcapping"),
        "attention",
        "followed, as is every field that transformers' class of the backbone knows",
    ),
    Field(
        _CONFIG,
        ("auto_map",),
        "which code reads the files",
        "dropped: transformers' own class of that `model_type` reads them; code of a checkpoint never runs",
    ),
    Field(
        _CONFIG,
        ("any other",),
        "what its authors' code makes of it",
        "refused if its name speaks of scores (`reward`, `score`, `logit`, `pool`, ...), its value is neither null, "
        "false, 0 nor empty, and there is no recipe; else no class of transformers reads it",
    ),
    Field(
        _ADAPTER,
        ("r", "lora_alpha", "use_rslora", "fan_in_fan_out", "task_type", "init_lora_weights"),
        "what the matrices mean",
        "followed; an `init_lora_weights` that changes the base (pissa, olora, corda, loftq, lora_ga) is refused",
    ),
    Field(
        _ADAPTER,
        ("target_modules", "modules_to_save", "layers_to_transform"),
        "which layers change",
        "followed: the tensors say it. A tensor that is neither a matrix of a linear layer nor a whole weight or bias "
        "is refused",
    ),
    Field(
        _ADAPTER,
        ("any other",),
        "the sum of base and matrices",
        "refused by name unless null, false, 0, empty or without effect after training: DoRA, rank and alpha patterns, "
        "biases, aLoRA, `trainable_token_indices`, `target_parameters`, ...",
    ),
    Field(
        _TOKENIZER,
        ("added_tokens_decoder", "additional_special_tokens", "eos_token", "add_prefix_space", "split_special_tokens"),
        "the tokens of a text",
        "refused if they disagree with tokenizer.json: its tokens are compared with those of all files together",
    ),
    Field(
        _TOKENIZER,
        ("bos_token", "add_bos_token", "chat_template"),
        "the text before and around segments",
        "followed by the presets that use them",
    ),
    Field(
        _TOKENIZER,
        ("truncation_side", "padding_side", "model_max_length", "add_eos_token"),
        "padding, cuts and what stands behind a text",
        "nothing is padded or cut here, and what stands behind an action is in the template",
    ),
    Field(
        "special_tokens_map.json",
        ("bos_token",),
        "the text before a segment",
        "followed if tokenizer_config.json names none",
    ),
    Field(
        "added_tokens.json",
        ("every token",),
        "the tokens of a text",
        "refused if tokenizer.json lacks it",
    ),
    Field(
        "generation_config.json",
        ("every field",),
        "text that is generated",
        "not read: no score here needs generated text",
    ),
)


def refuse_fields(config: Mapping[str, Any], *, has_recipe: bool) -> None:
    """Refuses a ``config.json`` with a field that changes scores and cannot be followed.

    With a recipe of one's own, fields that scale the score or that transformers does not know are its author's care.

    Raises:
        CheckpointError: there is such a field; the sentence names it.
    """
    for field in FIELDS:
        if field.file == _CONFIG and field.refused:
            for name in field.names:
                if name in config and field.refused(config[name]):
                    raise CheckpointError(f"config.json has {name}: {field.reason}")
    if has_recipe:
        return
    normalised = _is_set(config.get("normalize_reward")) or _differs(0)(config.get("mean"))
    if normalised or _differs(1)(config.get("std")):
        raise CheckpointError(
            "config.json: normalize_reward, mean or std scale the score; give a recipe with a calibration instead"
        )
    if unknown := unknown_fields(config):
        raise CheckpointError(
            f"config.json: {one_line(unknown[0])} may change the score, and no class of transformers reads it; give a "
            "recipe of your own if it does not, or that says what it does"
        )


def unknown_fields(config: Mapping[str, Any]) -> list[str]:
    """Set fields whose names speak of scores and that the checkpoint's config class does not know."""
    known = _known(config.get("model_type"))
    if known is None:
        return []
    listed = known | {name for field in FIELDS if field.file == _CONFIG for name in field.names}
    return sorted(
        name for name, value in config.items() if name not in listed and _is_set(value) and SCORING_WORDS.search(name)
    )


def _known(model_type: Any) -> set[str] | None:
    """The fields of a config class; None if transformers has no such class, and loading will say so."""
    if model_type not in CONFIG_MAPPING:
        return None
    kind = CONFIG_MAPPING[model_type]
    return {*kind().to_dict(), *kind.attribute_map}
