"""Promise targets of one trajectory, by label method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from agentprm.errors import AgentPRMError
from training.data.encoding import Encoded, named
from training.data.labels import final_outcome_targets, monte_carlo_targets, outcome_targets, promise_targets
from training.rollouts.rollout import Rollout

Method = Literal["td-gae", "no-progress", "mc", "mc-hard", "pvm", "orm", "steps"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """How steps are labelled. Terms are those of AgentPRM (arXiv 2511.08325).

    ``td-gae``: TD errors and GAE from the current promises and the outcome (eqs. 12-14). ``no-progress``: the same
    targets without the progress loss. ``mc``: the mean outcome of each step's continuations; ``mc-hard``: whether any
    succeeded (eq. 11). ``pvm``: the discounted outcome at every step. ``orm``: the outcome at the last step. ``steps``:
    given labels.

    A trajectory that a limit cut bootstraps from its last promise under ``td-gae``, and has no label under ``pvm`` and
    ``orm``.
    """

    method: Method = "td-gae"
    gamma: float = 1.0  # discount; 1 keeps promise a success probability
    lam: float = 0.95  # GAE lambda, the paper's
    lam_warm_up: float = 0.2  # share of the updates over which lambda falls from 1: early promises are noise

    def lam_at(self, update: int, updates: int) -> float:
        """Returns lambda at an update of ``updates``: it falls linearly from 1 to ``lam`` over the warm-up."""
        passed = min(1.0, update / max(1.0, self.lam_warm_up * updates))
        return 1 + (self.lam - 1) * passed


def targets(example: Encoded, promises: Sequence[float], labels: Labels, lam: float) -> list[float | None]:
    """Returns the target of each step, None where it has none. ``promises`` are the current model's, one a step."""
    steps, outcome = len(promises), example.outcome
    if labels.method in ("td-gae", "no-progress"):
        return list(promise_targets(promises, outcome, gamma=labels.gamma, lam=lam))
    if labels.method in ("mc", "mc-hard"):
        return list(monte_carlo_targets(example.rollout.continuations, hard=labels.method == "mc-hard"))
    if labels.method == "steps":
        return list(example.rollout.labels)
    if outcome is None:
        return [None] * steps
    if labels.method == "pvm":
        return list(outcome_targets(steps, outcome, gamma=labels.gamma))
    return final_outcome_targets(steps, outcome)


def is_labelled(example: Encoded, labels: Labels) -> list[bool]:
    """Returns which steps have a target; that does not depend on promises."""
    return [target is not None for target in targets(example, [0.0] * example.steps, labels, labels.lam)]


def refuse_missing_labels(examples: Sequence[Encoded], labels: Labels) -> None:
    """Checks that the data has what the method needs.

    Raises:
        AgentPRMError: a trajectory lacks continuations or labels, or none has a target.
    """
    check = _NEEDS.get(labels.method)
    if check is not None:
        what, has = check
        if lacking := [example.name for example in examples if not has(example.rollout)]:
            raise AgentPRMError(
                f"--labels {labels.method} needs {what}; {len(lacking)} of {len(examples)} trajectories lack them: "
                f"{named(lacking)}"
            )
    if not any(any(is_labelled(example, labels)) for example in examples):
        raise AgentPRMError(
            f"--labels {labels.method} finds no label in {len(examples)} trajectories: all were truncated"
            if labels.method != "steps"
            else f"--labels steps finds no label in {len(examples)} trajectories"
        )


def _has_continuations(rollout: Rollout) -> bool:
    return len(rollout.continuations) == rollout.steps and all(rollout.continuations)


def _has_labels(rollout: Rollout) -> bool:
    return len(rollout.labels) == rollout.steps


_CONTINUATIONS: Final = (
    "the outcomes of at least one continuation of every step (`continuations`)",
    _has_continuations,
)
_NEEDS: Final[dict[Method, tuple[str, Callable[[Rollout], bool]]]] = {
    "mc": _CONTINUATIONS,
    "mc-hard": _CONTINUATIONS,
    "steps": ("a label, or null, for every step (`labels`)", _has_labels),
}
