"""``list``, ``show`` and ``verify``: what is in the store, and whether it is sound."""

import argparse
import json

from model_store.commands.report import Report, table
from model_store.errors import CheckpointError
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store


def list_checkpoints(store: Store, _: argparse.Namespace) -> Report:
    """Every version with its aliases; manifests are read, nothing is hashed."""
    aliases = store.aliases()
    found, rows = [], [("checkpoint", "aliases", "score", "dtype", "context", "digest")]
    for reference in store.references():
        manifest = store.read_manifest(reference)
        mine = sorted(alias for alias, target in aliases.items() if target == reference)
        found.append({"checkpoint": reference, "aliases": mine, "digest": manifest.digest})
        score, context = f"{manifest.score.head} {manifest.score.activation}", f"{manifest.context_length:,}"
        rows.append((reference, ", ".join(mine), score, manifest.dtype, context, manifest.digest[:23]))
    return Report(found, table(rows) if found else f"no checkpoints in {store.root}")


def show_checkpoint(store: Store, given: argparse.Namespace) -> Report:
    """The manifest of one version."""
    manifest = store.read_manifest(store.reference(given.reference))
    template = manifest.template
    lines = [
        ("checkpoint", manifest.reference),
        ("base model", manifest.base_model),
        ("score", recipe_in_words(manifest.score)),
        *(
            (f"text of {name}", repr(getattr(template, name)))
            for name in ("begin", "task", "observation", "action", "next")
        ),
        ("tokenised by", template.tokenise),
        ("dtype", manifest.dtype),
        ("context", f"{manifest.context_length:,} tokens"),
        ("digest", manifest.digest),
    ]
    return Report(json.loads(manifest.to_json()), table(lines))


def verify_checkpoints(store: Store, given: argparse.Namespace) -> Report:
    """Whether the named versions, or all, still hash to their digests."""
    references = [store.reference(one) for one in given.references] or store.references()
    complaints: dict[str, str | None] = {}
    for reference in references:
        try:
            store.resolve(reference)
            complaints[reference] = None
        except CheckpointError as error:
            complaints[reference] = str(error)
    found = [
        {"checkpoint": one, "sound": complaint is None, "error": complaint} for one, complaint in complaints.items()
    ]
    lines = [f"{one}: {complaint or 'sound'}" for one, complaint in complaints.items()]
    return Report(found, "\n".join(lines) or f"no checkpoints in {store.root}", fine=not any(complaints.values()))


def recipe_in_words(score: ScoreRecipe) -> str:
    read = {
        "token": f"token {score.tokens}",
        "token_pair": f"tokens {score.tokens}",
        "vocabulary_mean": "all logits",
        "judge": "the verdict that it writes",
        "log_ratio": f"{score.beta} x the sum from {score.opens} to {score.closes}",
    }
    words = [score.head, read.get(score.head, ", ".join(score.layers))]
    words += [f"output {score.output}"] if score.output is not None else []
    words += (
        [score.activation]
        if score.calibration is None
        else [f"sigmoid({score.calibration.a} raw + {score.calibration.b})"]
    )
    return "; ".join([*words, *(["lower is better"] if score.direction == "lower" else [])])
