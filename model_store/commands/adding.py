"""``add`` and ``inspect``: a foreign checkpoint, and what its numbers would be."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from agentprm.types import State, Trajectory
from model_store.commands.looking import recipe_in_words
from model_store.commands.report import Report, table
from model_store.errors import CheckpointNotFound
from model_store.format.store import Store
from model_store.format.template import Template
from model_store.importers.hub import find_source
from model_store.importers.importer import SAMPLE, Imported, Wanted, add_checkpoint, sample_scores, stage
from model_store.text.renderer import Renderer, load_renderer, load_tokenizer


def add(store: Store, given: argparse.Namespace) -> Report:
    source, base = find_source(given.source), find_source(given.base) if given.base else None
    imported = add_checkpoint(store, source, _wanted(given, given.name, given.version), base)
    found = _findings(imported)
    return Report(found, f"published {imported.checkpoint.manifest.reference}\n{_in_words(found)}")


def inspect(store: Store, given: argparse.Namespace) -> Report:
    """A foreign checkpoint, or one of the store; nothing is published."""
    try:
        checkpoint = store.resolve(given.source)
    except CheckpointNotFound:
        with TemporaryDirectory(prefix="agentprm-inspect-") as scratch:
            source, base = find_source(given.source), find_source(given.base) if given.base else None
            found = _findings(stage(source, Path(scratch), _wanted(given, "inspected", "0"), base))
    else:
        found = _findings(Imported(checkpoint, "as published", sample_scores(checkpoint)))
    return Report(found, _in_words(found))


def _wanted(given: argparse.Namespace, name: str, version: str) -> Wanted:
    return Wanted(
        name,
        version,
        preset=given.preset,
        recipe=given.recipe,
        context_length=given.context_length,
        reference=find_source(given.reference) if given.reference else None,
        beta=given.beta,
        base_model=" merged into ".join(_origin(source) for source in (given.source, given.base) if source),
    )


def _origin(source: str) -> str:
    """As callers of the service may read it: of a directory only the name."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def _findings(imported: Imported) -> dict[str, Any]:
    checkpoint = imported.checkpoint
    manifest = checkpoint.manifest
    renderer, tokenizer = load_renderer(checkpoint), load_tokenizer(checkpoint.path)
    rendered = renderer.trajectory(SAMPLE)
    steps = [
        {
            "action": step.action,
            "read_at": tokenizer.id_to_token(rendered.token_ids[end]),
            "raw": raw,
            "promise": manifest.score.promise(raw),
        }
        for step, end, raw in zip(SAMPLE.steps, rendered.step_ends, imported.raw, strict=True)
    ]
    return {
        "checkpoint": manifest.reference,
        "preset": imported.preset,
        "recipe": recipe_in_words(manifest.score),
        "digest": manifest.digest,
        "sample": steps,
        "prefix_stable": is_prefix_stable(renderer, SAMPLE),
        "as_whole_text": is_as_whole_text(renderer, manifest.template, tokenizer, SAMPLE),
    }


def is_prefix_stable(renderer: Renderer, trajectory: Trajectory) -> bool:
    """Whether each step has the tokens alone that it has in the whole, and as a proposed action."""
    whole = renderer.trajectory(trajectory)
    for index, (step, end) in enumerate(zip(trajectory.steps, whole.step_ends, strict=True)):
        before = renderer.state(State(trajectory.task, trajectory.steps[:index], step.observation))
        if before.token_ids + renderer.actions([step.action], before)[0] != whole.token_ids[: end + 1]:
            return False
    return True


def is_as_whole_text(
    renderer: Renderer, template: Template, tokenizer: Tokenizer, trajectory: Trajectory
) -> bool | None:
    """Whether tokenising the whole text at once gives the same tokens; None where that is not the recipe's way."""
    if template.tokenise != "text":
        return None
    tokenizer.encode_special_tokens = False
    whole = tokenizer.encode(template.whole_text(trajectory), add_special_tokens=False)
    return bool(whole.ids == renderer.trajectory(trajectory).token_ids)


def _in_words(found: dict[str, Any]) -> str:
    rows = [("sample step", "read at", "raw", "promise")]
    rows += [
        (one["action"], repr(one["read_at"]), f"{one['raw']:.4f}", f"{one['promise']:.4f}") for one in found["sample"]
    ]
    whole = {True: "the same", False: "NOT the same", None: "not compared: segments are tokenised on their own"}
    lines = [
        f"preset: {found['preset']}",
        f"score: {found['recipe']}",
        f"tokens as from the whole text at once: {whole[found['as_whole_text']]}",
        f"prefix stable: {'yes' if found['prefix_stable'] else 'NO'}",
    ]
    return "\n".join([*lines, table(rows)])
