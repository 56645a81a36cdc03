"""A training run: from rollout files and a base model to a published checkpoint."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from accelerate import Accelerator

from agentprm.errors import AgentPRMError
from agentprm.rollouts import write_line
from model_store.format.store import Checkpoint, Store
from model_store.network.model import RewardModel, score_rows
from training.base_model import Base, BaseText, load_base
from training.data.encoding import Encoded, encode
from training.data.splits import split
from training.data.targets import refuse_missing_labels
from training.evaluation.held_out import HeldOut, measure
from training.evaluation.report_page import report_page
from training.publishing import Release, publish
from training.rollouts.lines import to_line
from training.rollouts.rendering import left_out_parts
from training.rollouts.rollout import Rollout
from training.trainers.recipe import Recipe
from training.trainers.state import States
from training.trainers.trainer import Data, Trained, train

SAMPLES: Final = 8
"""Trajectories whose scores the published checkpoint must repeat."""


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


VALIDATION: Final = 0.1
"""Share of the queries to train on whose AUC chooses the epoch."""


def run(plan: Run, rollouts: Sequence[Rollout], accelerator: Accelerator) -> Checkpoint | None:
    """Trains, measures on the held-out queries and publishes; only the main process does the last two.

    Raises:
        AgentPRMError: the version is there already, or something cannot be used; the sentence says what to do.
    """
    plan.store.free_path(plan.name, plan.version)
    if not plan.resume and any(plan.output.glob("state-*")):
        raise AgentPRMError(f"{plan.output} holds the states of a run; go on with --resume, or take another --output")
    base = _base(plan, accelerator)
    parts = split_and_encode(plan, rollouts, base.text)
    accelerator.print(*_notes(rollouts, parts, base.text), sep="\n")
    states = States(plan.output, identity(plan, rollouts, base.text))
    trained = train(base.model, Data(parts.train, parts.validation), plan.recipe, states, accelerator)
    if not accelerator.is_main_process:
        return None
    evaluation = measure_on(trained.model, parts)
    record = _record(plan, rollouts, parts, trained)
    files = {"report.html": report_page(evaluation.to_json(), record, plan.name, plan.version)}
    release = Release(plan.name, plan.version, record, evaluation.to_json(), files)
    samples = [row for example in (parts.held_out or parts.train)[:SAMPLES] for row in example.rows]
    return publish(trained.model, base.text, plan.store, release, samples, as_adapter=plan.as_adapter)


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
    parts = Parts(*(encoding.examples for encoding in encodings), [n for one in encodings for n in one.too_long])
    if not parts.train:
        raise AgentPRMError(
            f"no trajectory is left to train on of {len(rollouts)}: of {len({r.query for r in rollouts})} queries the "
            f"share {plan.held_out} is held out; collect more queries, or lower --held-out"
        )
    refuse_missing_labels(parts.train, plan.recipe.labels)
    return parts


def measure_on(model: RewardModel, parts: Parts) -> HeldOut:
    """The figures of a model on the held-out queries."""
    rows = [row for example in parts.held_out for row in example.rows]
    raw = iter(score_rows(model.eval(), [row.token_ids for row in rows], [row.reads for row in rows]))
    promises = [[_sigmoid(value) for _ in example.rows for value in next(raw)] for example in parts.held_out]
    trained_on = [example.rollout for example in (*parts.train, *parts.validation)]
    return measure([example.rollout for example in parts.held_out], promises, trained_on=trained_on)
