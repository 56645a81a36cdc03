"""The whole pipeline in miniature: rollouts, language model, Algorithm 1, evaluation, publish, load."""

import json
from pathlib import Path

import pytest
import torch

from model_store.format.store import Store
from training.demo import DemoConfig, publish, train_seed
from training.environments.textcraft.environment import TextCraft, held_out_goals, pretraining_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.evaluation.__main__ import load_critic
from training.evaluation.experiment import EvaluationConfig, evaluate
from training.evaluation.report import as_text
from training.rollouts.collect import collect
from training.trainers.pretraining import PretrainConfig
from training.trainers.promise import TrainConfig

MINIATURE = DemoConfig(
    pretrain_rollouts=48,
    label_rollouts=48,
    hidden=16,
    layers=1,
    pretrain=PretrainConfig(updates=6, batch_size=16),
    train=TrainConfig(updates=6, batch_size=16),
    evaluation=EvaluationConfig(proposals=(1, 2), episodes=1, trajectories=8),
)


def test_the_pipeline_trains_evaluates_and_publishes_a_checkpoint_that_scores_as_trained(tmp_path: Path) -> None:
    trained = train_seed(MINIATURE, seed=0)
    judges = trained.judges()
    report = evaluate([judges, judges], held_out_goals()[:6], TextCraft, NoisyPlanner(), MINIATURE.evaluation)
    store = Store(tmp_path)
    publish(trained, store, "1", config=MINIATURE, seed=0, report=report)

    checkpoint = store.resolve("demo")
    assert checkpoint.manifest.evaluation == json.loads(json.dumps(report.to_json()))
    served = load_critic(store, "demo")
    trajectories = [rollout.trajectory for rollout in collect(held_out_goals(), TextCraft, NoisyPlanner(), count=8, seed=1)]
    for ours, theirs in zip(
        served.step_promises(trajectories), judges.agentprm.step_promises(trajectories), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert store.resolve("textcraft-demo-orm").manifest.training["train"]["labels"] == "final_outcome"


def test_the_same_seed_trains_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (train_seed(MINIATURE, seed).agentprm.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight_H"], other["head.weight_H"])


def test_the_report_shows_every_method_at_every_n(tmp_path: Path) -> None:
    judges = train_seed(MINIATURE, seed=0).judges()
    report = evaluate([judges], held_out_goals()[:6], TextCraft, NoisyPlanner(), MINIATURE.evaluation)
    table = as_text(report)
    for method in (
        "policy alone",
        "majority vote",
        "AgentPRM",
        "AgentPRM + log count",
        "outcome model (ORM)",
        "oracle",
    ):
        assert f"| {method} |" in table
    assert set(report.steps["policy alone"]) == {1}
    assert set(report.steps["majority vote"]) == {2}
    assert set(report.best_of["oracle"]) == {1, 2}
    assert report.best_of["oracle"][2].mean >= report.best_of["AgentPRM"][2].mean


def test_no_training_data_comes_from_a_held_out_goal() -> None:
    held_out = set(held_out_goals())
    assert len(held_out) == 80
    assert not held_out & set(train_goals())
    assert not held_out & set(pretraining_goals())
