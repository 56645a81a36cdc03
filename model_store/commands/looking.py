"""``list``, ``show`` and ``verify``: the versions in the store, and whether they are sound."""

import json
from typing import Annotated

import typer

from model_store.commands.options import BUNDLED, JsonOption, StoreOption
from model_store.commands.report import Report, table
from model_store.errors import CheckpointError
from model_store.format.chat import CHAT_TEMPLATE
from model_store.format.check import Check
from model_store.format.manifest import Manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store


def list_checkpoints(store: StoreOption = BUNDLED, as_json: JsonOption = False) -> None:
    """List every version in the store.

    Only manifests are read; nothing is hashed.
    """
    checkpoints = Store(store)
    aliases = checkpoints.aliases()
    found, rows = [], [("checkpoint", "aliases", "score", "dtype", "context", "digest")]
    for reference in checkpoints.references():
        manifest = checkpoints.read_manifest(reference)
        names = sorted(alias for alias, target in aliases.items() if target == reference)
        found.append({"checkpoint": reference, "aliases": names, "digest": manifest.digest})
        score, context = f"{manifest.score.head} {manifest.score.activation}", f"{manifest.context_length:,}"
        rows.append((reference, ", ".join(names), score, manifest.dtype, context, manifest.digest[:23]))
    Report(found, table(rows) if found else f"no checkpoints in {store}").show(as_json=as_json)


def show_checkpoint(
    reference: Annotated[str, typer.Argument(help="Alias, name or name@version.")],
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Show the manifest of one version."""
    checkpoints = Store(store)
    manifest = checkpoints.read_manifest(checkpoints.reference(reference))
    lines = [
        ("checkpoint", manifest.reference),
        ("base model", manifest.base_model),
        ("score", recipe_in_words(manifest.score)),
        *_rendering_in_words(manifest),
        ("dtype", manifest.dtype),
        ("context", f"{manifest.context_length:,} tokens"),
        *((("checked", check_in_words(manifest.check)),) if manifest.check else ()),
        ("digest", manifest.digest),
    ]
    Report(json.loads(manifest.to_json()), table(lines)).show(as_json=as_json)


def _rendering_in_words(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows about the template of texts, or the chat template."""
    chat, template = manifest.chat, manifest.template
    if chat is not None:
        rows = [("text", f"the chat template in {CHAT_TEMPLATE}"), ("observations", f"turns of the {chat.observation}")]
        return [*rows, *([] if chat.date is None else [("date in its text", chat.date)])]
    assert template is not None
    names = ("begin", "task", "observation", "action", "next")
    rows = [(f"text of {name}", repr(getattr(template, name))) for name in names]
    return [*rows, ("tokenised by", template.tokenise)]


def verify_checkpoints(
    references: Annotated[
        list[str] | None, typer.Argument(help="Aliases, names or name@version.", show_default="all versions")
    ] = None,
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Check that versions still hash to their digests."""
    checkpoints = Store(store)
    errors = {
        reference: _error(checkpoints, reference)
        for reference in map(checkpoints.reference, references or checkpoints.references())
    }
    found = [{"checkpoint": reference, "sound": error is None, "error": error} for reference, error in errors.items()]
    lines = [f"{reference}: {error or 'sound'}" for reference, error in errors.items()]
    text = "\n".join(lines) or f"no checkpoints in {store}"
    Report(found, text, success=not any(errors.values())).show(as_json=as_json)


def _error(checkpoints: Store, reference: str) -> str | None:
    """Returns why a version does not resolve; None if it does."""
    try:
        checkpoints.resolve(reference)
    except CheckpointError as error:
        return str(error)
    return None


def check_in_words(check: Check) -> str:
    """Returns the outcome of a check on one line."""
    return (
        f"{check.steps} scores agree with the authors' numbers, largest difference {check.largest_difference:.2g}, "
        f"tolerance {check.tolerance:g}, items {check.items[:23]}"
    )


def _activation_in_words(score: ScoreRecipe) -> str:
    if score.isotonic:
        return f"a table of {len(score.isotonic)} pairs"
    if score.calibration is None:
        return score.activation
    return f"sigmoid({score.calibration.a} raw + {score.calibration.b})"


def recipe_in_words(score: ScoreRecipe) -> str:
    """Returns a recipe on one line: head, what it reads, activation."""
    read = {
        "token": f"token {score.tokens}",
        "token_pair": f"tokens {score.tokens}",
        "vocabulary_mean": "all logits",
        "judge": "the verdict that it writes",
        "log_ratio": f"{score.beta} x the sum from {score.opens} to {score.closes}",
    }
    words = [score.head, read.get(score.head, ", ".join(score.layers))]
    words += [f"output {score.output}"] if score.output is not None else []
    words += [f"never at token {score.pad_token_id}"] if score.pad_token_id is not None else []
    words += [_activation_in_words(score)]
    return "; ".join([*words, *(["lower is better"] if score.direction == "lower" else [])])
