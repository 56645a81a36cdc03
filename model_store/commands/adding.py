"""``add`` and ``inspect``: a checkpoint of any family, and its scores of a sample."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from model_store.commands.comparing import comparison_report
from model_store.commands.looking import recipe_in_words
from model_store.commands.options import (
    BUNDLED,
    BaseOption,
    BetaOption,
    CheckOption,
    ConfigFromOption,
    ContextOption,
    JsonOption,
    PresetOption,
    RecipeOption,
    ReferenceOption,
    SeparatorOption,
    SourceArgument,
    StoreOption,
    SubfolderOption,
)
from model_store.commands.report import Report, table
from model_store.commands.samples import show_sample
from model_store.commands.sources import find_sources
from model_store.errors import CheckpointError, CheckpointNotFound
from model_store.format.check import read_check_file
from model_store.format.store import Checkpoint, Store
from model_store.importers.check import CheckFailed, compare
from model_store.importers.importer import Imported, ImportOptions, add_checkpoint, sample_scores, stage


def add(
    *,
    source: SourceArgument,
    name: Annotated[str, typer.Option(help="Name of the checkpoint in the store.")],
    version: Annotated[str, typer.Option(help="Version of the checkpoint; a published version never changes.")],
    preset: PresetOption = None,
    recipe: RecipeOption = None,
    separator: SeparatorOption = None,
    base: BaseOption = None,
    reference: ReferenceOption = None,
    beta: BetaOption = None,
    subfolder: SubfolderOption = "",
    config_from: ConfigFromOption = None,
    context_length: ContextOption = None,
    check: CheckOption = None,
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Import a checkpoint from a directory or the hub.

    It is published after it has been loaded and has scored a sample; with --check, only if its scores agree with those
    of its authors' code.
    """
    _refuse_both(preset, recipe)
    expected = read_check_file(check) if check else None
    sources = find_sources(source, subfolder, base, reference, config_from)
    options = sources.options(
        ImportOptions(name, version, preset, recipe, context_length, separator=separator, beta=beta, check=expected)
    )
    try:
        imported = add_checkpoint(Store(store), sources.path, options, sources.base)
    except CheckFailed as failed:
        compared = comparison_report(failed.comparison)
        Report({"check": compared.data}, compared.text).show(as_json=as_json)
        raise
    report = _report(imported)
    published = f"published {imported.checkpoint.manifest.reference}"
    report._replace(text=f"{published}\n{report.text}").show(as_json=as_json)


def inspect(
    *,
    source: Annotated[
        str, typer.Argument(help="A directory, owner/name@commit of the hub, or a version of the store.")
    ],
    preset: PresetOption = None,
    recipe: RecipeOption = None,
    separator: SeparatorOption = None,
    base: BaseOption = None,
    reference: ReferenceOption = None,
    beta: BetaOption = None,
    subfolder: SubfolderOption = "",
    config_from: ConfigFromOption = None,
    context_length: ContextOption = None,
    check: CheckOption = None,
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Show how a checkpoint would score.

    The source is a checkpoint to import, which is not published, or a version of the store.
    """
    _refuse_both(preset, recipe)
    expected = read_check_file(check) if check else None
    try:
        checkpoint = Store(store).resolve(source)
    except CheckpointNotFound:
        options = ImportOptions(
            "inspected", "0", preset, recipe, context_length, separator=separator, beta=beta, check=expected
        )
        with TemporaryDirectory(prefix="agentprm-inspect-") as scratch:
            sources = find_sources(source, subfolder, base, reference, config_from)
            report = _report(stage(sources.path, Path(scratch), sources.options(options), sources.base))
    else:
        _refuse_judge(checkpoint)
        comparison = compare(checkpoint, expected) if expected else None
        report = _report(Imported(checkpoint, "as published", sample_scores(checkpoint), comparison=comparison))
    report.show(as_json=as_json)


def _refuse_both(preset: str | None, recipe: Path | None) -> None:
    if preset and recipe:
        raise typer.BadParameter("--preset and --recipe exclude each other")


def _refuse_judge(checkpoint: Checkpoint) -> None:
    if checkpoint.manifest.judge is not None:
        reference = checkpoint.manifest.reference
        raise CheckpointError(f"{reference} is a judge, whose server gives the scores; show prints its manifest")


def _report(imported: Imported) -> Report:
    """Returns what was found out about a checkpoint; no success if its scores disagree with the authors' numbers."""
    found = _findings(imported)
    if imported.comparison is None:
        return Report(found, _in_words(found))
    compared = comparison_report(imported.comparison)
    return Report({**found, "check": compared.data}, f"{_in_words(found)}\n{compared.text}", compared.success)


def _findings(imported: Imported) -> dict[str, Any]:
    checkpoint = imported.checkpoint
    manifest = checkpoint.manifest
    shown = show_sample(checkpoint, imported.raw)
    return {
        "checkpoint": manifest.reference,
        "source": manifest.base_model,
        "notes": [*imported.notes, *shown.notes],
        "preset": imported.preset,
        "recipe": recipe_in_words(manifest.score),
        "digest": manifest.digest,
        "sample": shown.steps,
        "prefix_stable": shown.prefix_stable,
        "as_whole_text": shown.as_whole_text,
        "agent_chat": shown.agent_chat,
    }


def _in_words(found: dict[str, Any]) -> str:
    rows = [("sample step", "read at", "raw", "promise")]
    rows += [
        (step["action"], repr(step["read_at"]), f"{step['raw']:.4f}", f"{step['promise']:.4f}")
        for step in found["sample"]
    ]
    whole = {True: "the same", False: "NOT the same", None: "not compared: segments are tokenised on their own"}
    lines = [
        f"source: {found['source']}",
        f"preset: {found['preset']}",
        f"score: {found['recipe']}",
        f"tokens as from the whole text at once: {whole[found['as_whole_text']]}",
        f"prefix stable: {'yes' if found['prefix_stable'] else 'NO'}",
    ]
    chat = found["agent_chat"]
    lines += [] if chat is None else [f"a chat with tools:\n{chat}"]
    return "\n".join([*lines, *found["notes"], table(rows)])
