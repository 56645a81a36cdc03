"""A training run: from rollout files and a base model to a published checkpoint."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from accelerate import Accelerator

from agentprm.errors import AgentPRMError, InvalidRequest
from model_store.format.bases import base_digest
from model_store.format.store import Checkpoint, Store
from model_store.network.model import RewardModel
from training.base_model import Base, BaseText, load_base
from training.data.encoding import Encoded, encode
from training.data.splits import split
from training.data.targets import refuse_missing_labels
from training.evaluation.held_out import HeldOut, measure
from training.evaluation.report_page import report_page
from training.evaluation.scoring import promises_of, raw_scores
from training.publishing import Release, publish
from training.rollouts.lines import data_digest
from training.rollouts.rendering import left_out_parts
from training.rollouts.rollout import Rollout
from training.trainers.recipe import Recipe
from training.trainers.state import States
from training.trainers.trainer import Data, Trained, train

SAMPLES: Final = 8
"""Trajectories whose scores the published checkpoint must repeat."""
VALIDATION: Final = 0.1
"""Share of the queries to train on whose AUC chooses the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is trained from what, and where it goes.

    ``held_out`` is the share of the queries that are never trained on: the figures are measured on them. A tenth of the
    others choose the epoch. ``output`` keeps the states; a run that was killed goes on from there with ``resume``.
    """

    base: str
    store: Store
    name: str
    version: str
    output: Path
    recipe: Recipe
    held_out: float = 0.1
    context_length: int | None = None
    skip_too_long: bool = False
    as_adapter: bool = False
    resume: bool = False
    tasks: str = ""


class Parts(NamedTuple):
    """Rollouts in tokens by what they are for, and the names of those that are too long to be used."""

    train: list[Encoded]
    validation: list[Encoded]
    held_out: list[Encoded]
    too_long: list[str]


class Ended(NamedTuple):
    """What came of a run."""

    checkpoint: Checkpoint
    figures: HeldOut


def run(plan: Run, rollouts: Sequence[Rollout], accelerator: Accelerator) -> Ended | None:
    """Trains, measures on the held-out queries and publishes; only the main process does the last two, others get None.

    Raises:
        AgentPRMError: the version is there already, or something cannot be used; the sentence says what to do.
    """
    plan.store.free_path(plan.name, plan.version)
    if plan.as_adapter and plan.recipe.lora is None:
        raise InvalidRequest("--as-adapter needs --lora")
    if not plan.resume and any(plan.output.glob("state-*")):
        raise AgentPRMError(f"{plan.output} holds the states of a run; go on with --resume, or take another --output")
    base = _base(plan, accelerator)
    parts = split_and_encode(plan, rollouts, base.text)
    accelerator.print(*_notes(rollouts, parts, base.text), sep="\n")
    states = States(plan.output, identity(plan, rollouts, base.text))
    trained = train(base.model, Data(parts.train, parts.validation), plan.recipe, states, accelerator)
    if not accelerator.is_main_process:
        return None
    evaluation = measure_on(trained.model, base.text.manifest.score.promise, parts)
    record = _record(plan, rollouts, parts, trained)
    files = {"report.html": report_page(evaluation.to_json(), record, f"{plan.name}@{plan.version}")}
    release = Release(plan.name, plan.version, record, evaluation.to_json(), files)
    samples = [row for example in (parts.held_out or parts.train)[:SAMPLES] for row in example.rows]
    checkpoint = publish(trained.model, base.text, plan.store, release, samples, as_adapter=plan.as_adapter)
    return Ended(checkpoint, evaluation)


def split_and_encode(plan: Run, rollouts: Sequence[Rollout], text: BaseText) -> Parts:
    """Parts rollouts by query and renders them.

    Raises:
        AgentPRMError: too few queries, a trajectory that cannot be rendered or is too long, or labels that are missing.
    """
    seed = plan.recipe.seed
    outer = split(rollouts, plan.held_out, seed)
    inner = split(outer.train, VALIDATION, seed + 1)
    encodings = [
        encode(part, text.renderer, text.context_length, skip_too_long=plan.skip_too_long)
        for part in (inner.train, inner.held_out, outer.held_out)
    ]
    train_part, validation, held_out = (encoding.examples for encoding in encodings)
    parts = Parts(train_part, validation, held_out, [name for one in encodings for name in one.too_long])
    if not parts.train:
        raise AgentPRMError(
            f"no trajectory is left to train on of {len(rollouts)}: of {len({r.query for r in rollouts})} queries the "
            f"share {plan.held_out} is held out; collect more queries, or lower --held-out"
        )
    refuse_missing_labels(parts.train, plan.recipe.labels)
    return parts


def measure_on(model: RewardModel, promise: Callable[[float], float], parts: Parts) -> HeldOut:
    """The figures of a model on the held-out queries; ``promise`` maps its raw scores."""
    promises = promises_of(raw_scores(model, [example.rows for example in parts.held_out]), promise)
    trained_on = [example.rollout for example in (*parts.train, *parts.validation)]
    return measure([example.rollout for example in parts.held_out], promises, trained_on=trained_on)


def identity(plan: Run, rollouts: Sequence[Rollout], text: BaseText) -> dict[str, Any]:
    """What a state belongs to; a run goes on only with the same."""
    return {
        "recipe": plan.recipe.to_json(),
        "base": text.source,
        "base_digest": base_digest(text.checkpoint.path),
        "context_length": text.context_length,
        "held_out": plan.held_out,
        "data": data_digest(rollouts),
    }


def _base(plan: Run, accelerator: Accelerator) -> Base:
    """The base, laid out in a directory of its own for each process, which a run that was killed may have left."""
    into = plan.output / f"base-{accelerator.process_index}"
    shutil.rmtree(into, ignore_errors=True)
    dtype = "float32" if plan.recipe.lora is None else plan.recipe.dtype
    return load_base(plan.base, into, plan.store, dtype=dtype, context_length=plan.context_length)


def _notes(rollouts: Sequence[Rollout], parts: Parts, text: BaseText) -> list[str]:
    counts = f"{len(parts.train)} trajectories to train on, {len(parts.validation)} to choose the epoch by, "
    notes = [f"{counts}{len(parts.held_out)} held out"]
    if not parts.validation:
        notes.append("no query chooses the epoch, so the last one is taken; collect more queries")
    if parts.too_long:
        notes.append(f"left out: {len(parts.too_long)} with more than {text.context_length} tokens")
    return notes + list(left_out_parts((rollout.history for rollout in rollouts), text.renderer))


def _record(plan: Run, rollouts: Sequence[Rollout], parts: Parts, trained: Trained) -> dict[str, Any]:
    """The training record of the manifest."""
    progress = trained.progress
    tokens = sum(example.tokens for example in parts.train)
    return {
        **({"environment": plan.tasks} if plan.tasks else {}),
        "recipe": plan.recipe.to_json(),
        "data": {
            "digest": data_digest(rollouts),
            "trajectories": len(parts.train),
            "queries": len({example.rollout.query for example in parts.train}),
            "steps": sum(example.steps for example in parts.train),
            "tokens": tokens,
            "validation_trajectories": len(parts.validation),
            "held_out_trajectories": len(parts.held_out),
            "too_long": len(parts.too_long),
        },
        "split": {"held_out": plan.held_out, "seed": plan.recipe.seed},
        "updates": progress.updates,
        "validation_auc": [round(auc, 4) for auc in progress.measured],
        "packed": trained.packed,
    }
