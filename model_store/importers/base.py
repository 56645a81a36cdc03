"""A causal language model as the beginning of a checkpoint: its files, and how histories will be rendered for it."""

import json
from pathlib import Path
from typing import Final

from model_store.errors import CheckpointError
from model_store.format.store import Checkpoint
from model_store.importers.families import has_chat_template
from model_store.importers.importer import ImportOptions, manifest_of, read_config, stage_model
from model_store.importers.sources import readable
from model_store.importers.text_tower import text_config
from model_store.importers.weights import link_or_copy

PRESET: Final = "sequence-classification"
"""What a trained checkpoint is: its own chat template, a linear head over the last token of an action, a sigmoid."""


def stage_base(source: Path, into: Path, *, context_length: int | None = None, weights: bool = True) -> Checkpoint:
    """Writes a language model into the directory ``into``; the manifest is that of a checkpoint trained from it.

    The weights lack the head. Without ``weights``, there are the tokenizer, the chat template and ``config.json`` only.

    Raises:
        CheckpointError: its files cannot be used, it has no chat template, or fewer positions than ``context_length``.
    """
    with readable(source, into.parent) as plain:
        if not has_chat_template(plain.path):
            raise CheckpointError(
                f"{source} has no chat template, so nothing says how a history becomes its text; "
                "take the instruct version of the model, or put a chat_template.jinja beside its tokenizer"
            )
        if weights:
            config, _ = stage_model(plain.path, into, None, has_recipe=True)
        else:
            whole = read_config(plain.path)
            config = text_config(whole) or whole
            (into / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        if not (plain.path / "tokenizer.json").exists():
            raise CheckpointError(f"{source} has no tokenizer.json, nor files to build it from")
        link_or_copy(plain.path / "tokenizer.json", into / "tokenizer.json")
        options = ImportOptions("base", "0", preset=PRESET, context_length=context_length)
        manifest, _ = manifest_of(into, plain.path, config, options)
    positions = config.get("max_position_embeddings") or manifest.context_length
    if manifest.context_length > positions:
        raise CheckpointError(
            f"a context of {manifest.context_length} tokens is over the {positions} positions of {source}"
        )
    return Checkpoint(into, manifest)
