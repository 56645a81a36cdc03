"""Measures critics on held-out goals, with the policy alone, majority vote and the oracle for comparison.

Axes: R training seeds, G goals, E episodes, S steps.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from agentprm.search.choosers import BestPromise, Choose, first, majority
from training.environments.base import E, EnvironmentFactory, G, Policy
from training.evaluation.acting import act
from training.evaluation.critic import Critic
from training.evaluation.metrics import (
    Floats,
    Indices,
    Interval,
    best_of,
    bootstrap,
    calibration_error,
    step_auc,
    success_interval,
)
from training.rollouts.collect import roll_out
from training.rollouts.rollout import Rollout

COUNT_WEIGHT = 0.05
"""Weight of the log count added to the promise; chosen on goals carved from the training goals (docs/decisions.md)."""


class Critics(NamedTuple):
    """The models of one training seed: AgentPRM and the outcome-only baseline (ORM)."""

    agentprm: Critic
    orm: Critic


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Sizes and random seed of an evaluation."""

    proposals: tuple[int, ...] = (1, 2, 4, 8, 16)  # values of N: actions sampled a step, trajectories for best-of-N
    episodes: int = 3  # episodes a goal, for acting step by step
    trajectories: int = 48  # trajectories a goal, for best-of-N and for step AUC
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Intervals of success rates in [0, 1] and of step measures.

    ``offline`` maps a critic to {measure: interval}, ``steps`` and ``best_of`` map a method to {N: interval}.
    """

    goals: int
    training_seeds: int
    episodes: int
    trajectories: int
    offline: dict[str, dict[str, Interval]]
    steps: dict[str, dict[int, Interval]]
    best_of: dict[str, dict[int, Interval]]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as a reader of its JSON gets it: N is a text, an interval a list."""
        report: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return report


def evaluate(
    seed_critics: Sequence[Critics],
    goals: Sequence[G],
    make: EnvironmentFactory[G, E],
    policy: Policy[E],
    config: EvaluationConfig,
) -> Report:
    """Measures the models of all training seeds together; the intervals cover seeds and goals."""
    sampled = _sample(goals, make, policy, config)
    critics = {
        "AgentPRM": [seed.agentprm for seed in seed_critics],
        "outcome model (ORM)": [seed.orm for seed in seed_critics],
    }
    promises = {name: [_step_promises(critic, sampled) for critic in runs] for name, runs in critics.items()}
    return Report(
        goals=len(goals),
        training_seeds=len(seed_critics),
        episodes=config.episodes,
        trajectories=config.trajectories,
        offline={name: _offline(runs, sampled) for name, runs in promises.items()},
        steps=_acting(critics, goals, make, policy, config),
        best_of=_best_trajectories(promises, sampled, config.proposals),
    )


Trajectories = list[list[Rollout]]  # [G][E]
StepPromises = list[list[list[float]]]  # [G][E][S]


def _sample(
    goals: Sequence[G], make: EnvironmentFactory[G, E], policy: Policy[E], config: EvaluationConfig
) -> Trajectories:
    def play(goal: G, number: int) -> Rollout:
        env = make(goal, number)
        return roll_out(env, policy, random.Random(f"sample {config.seed} {env.task_name} {number}"))

    return [
        [play(goal, number) for number in range(config.trajectories)]
        for goal in tqdm(goals, desc="trajectories", unit="goal", mininterval=5)
    ]


def _step_promises(critic: Critic, sampled: Trajectories) -> StepPromises:
    return [critic.step_promises([rollout.trajectory for rollout in rollouts]) for rollouts in sampled]


def _outcomes(sampled: Trajectories) -> Floats:
    return np.array([[_outcome(rollout) for rollout in rollouts] for rollouts in sampled])


def _outcome(rollout: Rollout) -> float:
    return rollout.outcome or 0.0


def _offline(runs: Sequence[StepPromises], sampled: Trajectories) -> dict[str, Interval]:
    """Measures every step's promise against the final outcome of its trajectory."""
    flat = [[np.array([score for steps in goal for score in steps]) for goal in run] for run in runs]
    outcomes = [
        np.repeat([_outcome(rollout) for rollout in rollouts], [rollout.steps for rollout in rollouts])
        for rollouts in sampled
    ]

    def measured(measure: Callable[[Floats, Floats], float]) -> Interval:
        def statistic(run: int, goals: Indices) -> float:
            return measure(
                np.concatenate([flat[run][goal] for goal in goals]), np.concatenate([outcomes[goal] for goal in goals])
            )

        return bootstrap(statistic, runs=len(runs), goals=len(sampled))

    return {"step AUC": measured(step_auc), "calibration error": measured(calibration_error)}


def _acting(
    critics: dict[str, list[Critic]],
    goals: Sequence[G],
    make: EnvironmentFactory[G, E],
    policy: Policy[E],
    config: EvaluationConfig,
) -> dict[str, dict[int, Interval]]:
    """Success of the policy alone at N = 1, and of every method that chooses at each larger N."""

    def success(choosers: list[Choose], n: int) -> Interval:
        sizes = {"proposals": n, "episodes": config.episodes, "seed": config.seed}
        return success_interval(np.stack([act(goals, make, policy, choose, **sizes) for choose in choosers]))

    table: dict[str, dict[int, Interval]] = {}
    for name, choosers in tqdm(_methods(critics).items(), desc="acting", unit="method", mininterval=5):
        for n in config.proposals:
            if (n == 1) == (name == "policy alone"):
                table.setdefault(name, {})[n] = success(choosers, n)
    return table


def _methods(critics: dict[str, list[Critic]]) -> dict[str, list[Choose]]:
    """Choosers by method, one for each training seed where the method has a model."""
    methods: dict[str, list[Choose]] = {"policy alone": [first], "majority vote": [majority]}
    methods |= {name: [BestPromise(critic.action_promises) for critic in runs] for name, runs in critics.items()}
    methods["AgentPRM + log count"] = [
        BestPromise(critic.action_promises, COUNT_WEIGHT) for critic in critics["AgentPRM"]
    ]
    return methods


def _best_trajectories(
    promises: dict[str, list[StepPromises]], sampled: Trajectories, sizes: Sequence[int]
) -> dict[str, dict[int, Interval]]:
    """Success of the best of N whole trajectories, chosen by the final step's promise (AgentPRM, section 4.2)."""
    outcomes = _outcomes(sampled)
    scores = {
        name: [np.array([[steps[-1] for steps in goal] for goal in run]) for run in runs]
        for name, runs in promises.items()
    }
    scores["oracle"] = [outcomes]
    return {
        name: {n: success_interval(np.stack([best_of(run, outcomes, n) for run in runs])) for n in sizes}
        for name, runs in scores.items()
    }
