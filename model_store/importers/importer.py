"""Imports a checkpoint of any family into the store, in the layout that is served.

It is published only after it has been loaded like a served one and has scored a sample.
"""

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.format.chat import CHAT_TEMPLATE
from model_store.format.check import CheckFile
from model_store.format.manifest import FORMAT, Manifest, parse_manifest
from model_store.format.store import REFERENCE, Checkpoint, Store
from model_store.importers.check import CheckFailed, Comparison, compare
from model_store.importers.config_fields import refuse_fields
from model_store.importers.families import (
    read_recipe,
    recipe_of,
    recognise,
    refuse_unread_bias,
    with_separator,
)
from model_store.importers.left_to_right import refuse_later_tokens
from model_store.importers.notes import notes
from model_store.importers.own_logits import refuse_other_logits
from model_store.importers.padding import pad_token
from model_store.importers.presets import PRESETS
from model_store.importers.sample import refuse_unread_steps, sample_for
from model_store.importers.sources import readable
from model_store.importers.text_tower import text_config
from model_store.importers.unread_tensors import refuse_unread_tensors
from model_store.importers.weights import link_or_copy, stage_weights
from model_store.network.lora import CONFIG as ADAPTER
from model_store.network.lora import Adapter
from model_store.network.model import load_model, score_rows
from model_store.network.tensors import tensor_shapes
from model_store.text.loading import render, renderer_of
from model_store.text.tokenizer_file import load_tokenizer


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Name, version and recipe of an imported checkpoint.

    At most one of ``preset`` and ``recipe`` is given; without both, the family must follow from the files.
    ``separator`` is the text after each step, where a preset leaves it open. ``reference`` is the model that a
    ``log_ratio`` compares with, and ``beta`` its factor. ``config_from`` holds the configuration and the tokenizer, if
    the source does not. ``check`` holds the authors' numbers that the scores must agree with.
    """

    name: str
    version: str
    preset: str | None = None
    recipe: Path | None = None
    context_length: int | None = None
    base_model: str = ""
    separator: str | None = None
    reference: Path | None = None
    beta: float | None = None
    config_from: Path | None = None
    check: CheckFile | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """A checkpoint, its preset, and the raw scores that it gives the steps of ``SAMPLE``.

    ``notes`` are sentences about what was changed on the way, and about what its files leave open or say unusually.
    ``comparison`` is there if the authors' numbers were given.
    """

    checkpoint: Checkpoint
    preset: str
    raw: list[float]
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None


def add_checkpoint(store: Store, source: Path, options: ImportOptions, base: Path | None = None) -> Imported:
    """Publishes ``source``, or the LoRA adapter ``source`` merged into ``base``.

    Raises:
        CheckpointError: it cannot be recognised, loaded or scored. The store is not changed then.
        CheckFailed: its scores differ from the authors' numbers. The store is not changed then either.
    """
    store.free_path(options.name, options.version)
    store.root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=store.root, prefix=".import-") as scratch:
        imported = stage(source, Path(scratch), options, base)
        manifest, comparison = imported.checkpoint.manifest, imported.comparison
        if comparison and not comparison.agrees:
            raise CheckFailed(comparison)
        if comparison:
            manifest = replace(manifest, check=comparison.outcome())
        published = store.publish(imported.checkpoint.path, manifest)
    return replace(imported, checkpoint=published)


def stage(source: Path, into: Path, options: ImportOptions, base: Path | None = None) -> Imported:
    """Writes a checkpoint as it is to be published, loads it, scores the sample, and compares its scores if asked to.

    Raises like ``add_checkpoint``, but returns a comparison that disagrees.
    """
    if base and options.config_from:
        raise CheckpointError(
            "an adapter takes the configuration of its base: --base and --config-from exclude each other"
        )
    preset = PRESETS.get(options.preset or "")
    step_token = preset.separator if preset and preset.separator_added else ""
    with readable(source, into.parent, options.config_from, step_token) as own, ExitStack() as stack:
        under = stack.enter_context(readable(base, into.parent)) if base else None
        imported = _stage(own.path, into, options, under.path if under else None)
    return replace(imported, notes=(*own.notes, *(under.notes if under else ()), *imported.notes))


def _stage(source: Path, into: Path, options: ImportOptions, base: Path | None) -> Imported:
    adapter = _adapter(source, base)
    config, changes = stage_model(base or source, into, adapter, has_recipe=options.recipe is not None)
    tokenizer_from = source if (source / "tokenizer.json").exists() else base or source
    if not (tokenizer_from / "tokenizer.json").exists():
        raise CheckpointCorrupt(
            f"{tokenizer_from} has no tokenizer.json, nor files to build it from; --config-from names a source that has"
        )
    link_or_copy(tokenizer_from / "tokenizer.json", into / "tokenizer.json")
    manifest, preset = manifest_of(into, tokenizer_from, config, options)
    if adapter:
        adapter.refuse_unread(manifest.score.layers)
    if (options.reference is not None) != (manifest.score.head == "log_ratio"):
        raise CheckpointError(
            "a log_ratio needs a --reference, the model that it compares with, and no other head does"
        )
    if options.reference:
        stage_reference(options.reference, into)
    checkpoint = Checkpoint(into, manifest)
    assumed = notes(manifest, preset, options.separator)
    raw = sample_scores(checkpoint)
    comparison = compare(checkpoint, options.check) if options.check else None
    return Imported(checkpoint, preset, raw, (*changes, *assumed), comparison)


def stage_model(
    source: Path, into: Path, adapter: Adapter | None, *, has_recipe: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Writes weights and ``config.json`` of a model, of a composite those of its text tower; returns config and notes.

    Raises:
        CheckpointError: its files cannot be used.
    """
    whole = read_config(source)
    text = text_config(whole)
    config = text or whole
    refuse_fields(config, has_recipe=has_recipe)
    if adapter:
        config["architectures"] = [adapter.architecture(_architecture(config))]
    left_out = stage_weights(source, into, adapter, text_only=text is not None)
    (into / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if text is None:
        return config, ()
    return config, (f"the text tower of {whole['model_type']}; left out: {', '.join(left_out) or 'nothing'}",)


def stage_reference(source: Path, into: Path) -> None:
    """Writes the reference model of a ``log_ratio`` into the directory of its policy.

    Raises:
        CheckpointError: its tokenizer differs from the policy's, or its files cannot be used.
    """
    path = into / REFERENCE
    path.mkdir()
    with readable(source, into.parent) as plain:
        if _tokenizer_content(into) != _tokenizer_content(plain.path):
            raise CheckpointError(
                f"the reference {source} has another tokenizer than the policy; a ratio needs the same"
            )
        stage_model(plain.path, path, None, has_recipe=True)


def _tokenizer_content(path: Path) -> dict[str, Any]:
    """A tokenizer as the library writes it, without padding and truncation, so that equal ones compare as equal."""
    tokenizer = load_tokenizer(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def sample_scores(checkpoint: Checkpoint) -> list[float]:
    """Raw scores of ``SAMPLE``, by the plain forward on the CPU.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, a score is not finite, or it changes with later steps.
    """
    renderer, model = renderer_of(checkpoint), load_model(checkpoint, "cpu", "auto")
    renderer.refuse_too_few_rows(model.vocabulary)
    refuse_unread_tensors(model.unread)
    found: list[float] = []
    for token_ids, reads in render(renderer, sample_for(renderer)):
        refuse_unread_steps(token_ids, reads, checkpoint.manifest.score)
        (raw,) = score_rows(model, [token_ids], [reads])
        if not all(map(math.isfinite, raw)):
            raise CheckpointCorrupt(f"{checkpoint.manifest.reference} gives a sample no finite score")
        refuse_later_tokens(model, token_ids, reads, raw, checkpoint.manifest.dtype)
        refuse_other_logits(checkpoint, model, token_ids, reads, raw)
        found += raw
    return found


def _adapter(source: Path, base: Path | None) -> Adapter | None:
    if (source / ADAPTER).exists() and base is None:
        raise CheckpointError(f"{source} is an adapter; name the checkpoint it belongs to with --base")
    if base is not None and not (source / ADAPTER).exists():
        raise CheckpointError(f"{source} has no {ADAPTER}, so it is no adapter of {base}")
    return Adapter(source) if base is not None else None


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` without ``auto_map``, which names code of the checkpoint's own; that is never run."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(config, dict):
        raise CheckpointCorrupt(f"{file} must be an object")
    return {name: value for name, value in config.items() if name != "auto_map"}


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "a model without architectures"


def manifest_of(
    staged: Path, tokenizer_from: Path, config: dict[str, Any], options: ImportOptions
) -> tuple[Manifest, str]:
    """The manifest, checked like one read from a file, and the name of its preset."""
    if options.recipe:
        name, preset = "own recipe", read_recipe(options.recipe)
    else:
        shapes = tensor_shapes(staged)
        name = options.preset or recognise(_architecture(config), config, shapes)
        if name not in PRESETS:
            raise CheckpointError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
        preset = PRESETS[name]
        refuse_unread_bias(name, shapes)
    if options.separator is not None:
        preset = with_separator(name, preset, options.separator)
    tokenizer = load_tokenizer(staged)
    score, rendering, chat_template = recipe_of(preset, tokenizer_from, tokenizer)
    score |= pad_token(
        config, score, rendering.get("template"), chat_template.written if chat_template else (), tokenizer
    )
    score |= {} if options.beta is None else {"beta": options.beta}
    if chat_template:
        (staged / CHAT_TEMPLATE).write_bytes(chat_template.text.encode())
    data = {
        "format": FORMAT,
        "name": options.name,
        "version": options.version,
        "base_model": options.base_model or _architecture(config),
        "score": score,
        **rendering,
        "render_version": 1,
        "dtype": config.get("dtype") or config.get("torch_dtype") or "float32",
        "context_length": options.context_length or config.get("max_position_embeddings"),
        "training": {},
        "evaluation": {},
        "digest": "not published",
    }
    return parse_manifest(json.dumps(data)), name
