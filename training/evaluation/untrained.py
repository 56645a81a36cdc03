"""Scores of the rollouts that a checkpoint was not trained on, as far as its manifest tells."""

from collections.abc import Sequence
from typing import NamedTuple

from agentprm.errors import AgentPRMError
from model_store.format.manifest import Manifest
from model_store.format.store import Checkpoint
from training.data.encoding import named
from training.data.splits import split
from training.evaluation.scoring import scored
from training.rollouts.lines import data_digest
from training.rollouts.rollout import Rollout


class Untrained(NamedTuple):
    """Rollouts to measure, those that the checkpoint was trained on, and what a reader of figures must know."""

    rollouts: list[Rollout]
    trained_on: list[Rollout]
    notes: list[str]


class ScoredUntrained(NamedTuple):
    """Rollouts to measure with the raw scores of their steps; the rest as in ``Untrained``."""

    rollouts: list[Rollout]
    raw: list[list[float]]
    trained_on: list[Rollout]
    notes: list[str]


def scored_untrained(
    checkpoint: Checkpoint, rollouts: Sequence[Rollout], *, held_out_only: bool, skip_too_long: bool
) -> ScoredUntrained:
    """Scores what ``untrained`` chooses.

    Raises:
        AgentPRMError: as ``untrained`` and ``scored`` do.
    """
    chosen = untrained(checkpoint.manifest, rollouts, held_out_only=held_out_only)
    found = scored(checkpoint, chosen.rollouts, skip_too_long=skip_too_long)
    notes = list(chosen.notes)
    if found.too_long:
        notes.append(f"left out: {len(found.too_long)} trajectories that are too long: {named(found.too_long)}")
    return ScoredUntrained(found.rollouts, found.raw, chosen.trained_on, notes)


def untrained(manifest: Manifest, rollouts: Sequence[Rollout], *, held_out_only: bool = False) -> Untrained:
    """Leaves out the queries that the checkpoint was trained on, if these are the rollouts of its training.

    The split depends on nothing but a query, the share and the seed. So of other rollouts, such as a file that has
    grown since, ``held_out_only`` leaves out every query on the side of training; without it a note counts them.

    Raises:
        AgentPRMError: ``held_out_only``, and the manifest has no split.
    """
    digest = data_digest(rollouts)
    notes = _calibrated_on(manifest, digest)
    data, how = manifest.training.get("data"), manifest.training.get("split")
    if not isinstance(data, dict) or not isinstance(how, dict):
        if held_out_only:
            raise AgentPRMError(f"the manifest of {manifest.reference} does not say which queries were held out")
        return Untrained(list(rollouts), [], notes)
    parts = split(rollouts, how["held_out"], how["seed"])
    if data.get("digest") == digest:
        measured = f"its {len(parts.held_out)} held-out trajectories are measured"
        notes.append(f"{manifest.reference} was trained on these files: {measured}")
        return Untrained(parts.held_out, parts.train, notes)
    if held_out_only:
        notes.append(f"left out: {len(parts.train)} trajectories of queries on the side of training")
        return Untrained(parts.held_out, parts.train, notes)
    queries, doubtful = ({rollout.query for rollout in part} for part in (rollouts, parts.train))
    if doubtful:
        notes.append(
            f"{len(doubtful)} of {len(queries)} queries are on the side of training of {manifest.reference}: if it was "
            f"trained on them, figures are too good; --held-out-only leaves them out"
        )
    return Untrained(list(rollouts), [], notes)


def _calibrated_on(manifest: Manifest, digest: str) -> list[str]:
    calibration = manifest.training.get("calibration")
    if isinstance(calibration, dict) and calibration.get("data") == digest:
        return ["its calibration was fitted on these files: ECE and Brier are too good, those of its manifest are not"]
    return []
