"""What a critic is worth on goals it never saw, always beside the policy alone, majority vote and the oracle.

Axes: R training seeds, G goals, E episodes.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from agentprm.search.choosers import BestPromise, Choose, first, majority
from training.environments.base import Policy
from training.environments.textcraft.environment import Goal, TextCraft
from training.environments.textcraft.planner import NoisyPlanner
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
"""A pilot's value, checked on goals carved from the training goals; see docs/decisions.md."""


class Judges(NamedTuple):
    """The models of one training seed: AgentPRM and the outcome-only baseline (ORM)."""

    agentprm: Critic
    orm: Critic


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    proposals: tuple[int, ...] = (1, 2, 4, 8, 16)  # actions sampled at every step, and trajectories for best-of-N
    episodes: int = 3  # a goal, for acting step by step
    trajectories: int = 48  # a goal, for best-of-N and for step AUC
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Intervals by method; ``steps`` and ``best_of`` map a method to {N: interval}."""

    goals: int
    training_seeds: int
    episodes: int
    trajectories: int
    offline: dict[str, dict[str, Interval]]
    steps: dict[str, dict[int, Interval]]
    best_of: dict[str, dict[int, Interval]]

    def to_json(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # N as text, as any JSON reader sees it
        return report


def evaluate(judges: Sequence[Judges], goals: Sequence[Goal], config: EvaluationConfig) -> Report:
    """Everything, over all training seeds together; the intervals cover seeds and goals."""
    policy = NoisyPlanner()
    sampled = _sample(goals, policy, config)
    named = {"AgentPRM": [pair.agentprm for pair in judges], "outcome model (ORM)": [pair.orm for pair in judges]}
    promises = {name: [_step_promises(critic, sampled) for critic in critics] for name, critics in named.items()}
    return Report(
        goals=len(goals),
        training_seeds=len(judges),
        episodes=config.episodes,
        trajectories=config.trajectories,
        offline={name: _offline(runs, sampled) for name, runs in promises.items()},
        steps=_acting(named, goals, policy, config),
        best_of=_best_trajectories(promises, sampled, config.proposals),
    )


Trajectories = list[list[Rollout]]  # [G][E]
StepPromises = list[list[list[float]]]  # [G][E][S]


def _sample(goals: Sequence[Goal], policy: Policy[TextCraft], config: EvaluationConfig) -> Trajectories:
    return [
        [
            roll_out(TextCraft(goal, number), policy, random.Random(f"sample {config.seed} {goal.item} {number}"))
            for number in range(config.trajectories)
        ]
        for goal in tqdm(goals, desc="trajectories", unit="goal", mininterval=5)
    ]


def _step_promises(critic: Critic, sampled: Trajectories) -> StepPromises:
    return [critic.step_promises([rollout.trajectory for rollout in rollouts]) for rollouts in sampled]


def _outcomes(sampled: Trajectories) -> Floats:
    return np.array([[rollout.outcome for rollout in rollouts] for rollouts in sampled])


def _offline(runs: Sequence[StepPromises], sampled: Trajectories) -> dict[str, Interval]:
    """Step promise against the trajectory's final outcome."""
    flat = [[np.array([score for steps in goal for score in steps]) for goal in run] for run in runs]
    outcomes = [
        np.repeat([one.outcome for one in goal], [len(one.trajectory.steps) for one in goal]) for goal in sampled
    ]

    def measured(measure: Callable[[Floats, Floats], float]) -> Interval:
        def statistic(run: int, goals: Indices) -> float:
            return measure(
                np.concatenate([flat[run][goal] for goal in goals]), np.concatenate([outcomes[goal] for goal in goals])
            )

        return bootstrap(statistic, runs=len(runs), goals=len(sampled))

    return {"step AUC": measured(step_auc), "calibration error": measured(calibration_error)}


def _acting(
    named: dict[str, list[Critic]], goals: Sequence[Goal], policy: Policy[TextCraft], config: EvaluationConfig
) -> dict[str, dict[int, Interval]]:
    choosers: dict[str, list[Choose]] = {"policy alone": [first], "majority vote": [majority]}
    choosers |= {name: [BestPromise(critic.action_promises) for critic in critics] for name, critics in named.items()}
    choosers["AgentPRM + log count"] = [
        BestPromise(critic.action_promises, COUNT_WEIGHT) for critic in named["AgentPRM"]
    ]
    table: dict[str, dict[int, Interval]] = {}
    for name, runs in tqdm(choosers.items(), desc="acting", unit="method", mininterval=5):
        for n in config.proposals:
            if (n == 1) == (name == "policy alone"):
                played = [
                    act(goals, policy, choose, proposals=n, episodes=config.episodes, seed=config.seed)
                    for choose in runs
                ]
                table.setdefault(name, {})[n] = success_interval(np.stack(played))
    return table


def _best_trajectories(
    promises: dict[str, list[StepPromises]], sampled: Trajectories, sizes: Sequence[int]
) -> dict[str, dict[int, Interval]]:
    """Best of N whole trajectories by the final step's promise (the paper's section 4.2)."""
    outcomes = _outcomes(sampled)
    scores = {
        name: [np.array([[s[-1] for s in goal] for goal in run]) for run in runs] for name, runs in promises.items()
    }
    scores["oracle"] = [outcomes]
    return {
        name: {n: success_interval(np.stack([best_of(run, outcomes, n) for run in runs])) for n in sizes}
        for name, runs in scores.items()
    }
