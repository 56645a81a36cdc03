"""The whole pipeline in miniature, and its command: rollouts, training, evaluation, publish, load."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner

from model_store.format.store import Store
from training import demo
from training.demo import DemoConfig, Trained, publish, train_seed
from training.environments.textcraft.environment import TextCraft, held_out_goals, pretraining_goals, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.evaluation.experiment import EvaluationConfig, Report, evaluate
from training.evaluation.metrics import Interval
from training.evaluation.report import as_text
from training.rollouts.collect import collect
from training.study.textcraft import load_critic
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

HALF = Interval(0.5, 0.4, 0.6)
REPORT = Report(
    goals=80,
    training_seeds=1,
    episodes=3,
    trajectories=48,
    offline={"AgentPRM": {"step AUC": HALF}},
    steps={"AgentPRM": {2: HALF}},
    best_of={"AgentPRM": {2: HALF}},
)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train_seed(MINIATURE, seed=0)


@pytest.fixture(scope="module")
def report(trained: Trained) -> Report:
    """The report of two equal training seeds."""
    critics = trained.critics()
    return evaluate([critics, critics], held_out_goals()[:6], TextCraft, NoisyPlanner(), MINIATURE.evaluation)


def test_the_pipeline_trains_evaluates_and_publishes_a_checkpoint_that_scores_as_trained(
    tmp_path: Path, trained: Trained, report: Report
) -> None:
    critics = trained.critics()
    store = Store(tmp_path)
    publish(trained, store, "1", config=MINIATURE, seed=0, report=report)

    checkpoint = store.resolve("demo")
    assert checkpoint.manifest.evaluation == json.loads(json.dumps(report.to_json()))
    served = load_critic(store, "demo")
    trajectories = [
        rollout.trajectory for rollout in collect(held_out_goals(), TextCraft, NoisyPlanner(), count=8, seed=1)
    ]
    for ours, theirs in zip(
        served.step_promises(trajectories), critics.agentprm.step_promises(trajectories), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert store.resolve("textcraft-demo-orm").manifest.training["train"]["labels"] == "final_outcome"


def test_the_same_seed_trains_the_same_weights_and_another_seed_others(trained: Trained) -> None:
    first = trained.agentprm.state_dict()
    again, other = (train_seed(MINIATURE, seed).agentprm.state_dict() for seed in (0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight_H"], other["head.weight_H"])


def test_the_report_shows_every_method_at_every_n(report: Report) -> None:
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


def test_the_evaluation_plays_the_recorded_episodes(report: Report) -> None:
    """Compares only what depends on no model: every chooser gets the same episodes."""
    assert report.steps["policy alone"][1].mean == pytest.approx(1 / 6)
    assert report.best_of["oracle"][1].mean == pytest.approx(11 / 48)
    assert report.best_of["oracle"][2].mean == pytest.approx(10 / 24)


@pytest.mark.parametrize(
    ("flags", "seeds"), [(["--seeds", "3", "1", "2"], [3, 1, 2]), (["--seeds", "4"], [4]), ([], [0])]
)
def test_the_command_trains_every_seed_and_publishes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], seeds: list[int]
) -> None:
    train, published = Mock(return_value=[Mock() for _ in seeds]), Mock()
    monkeypatch.setattr(demo, "train_seeds", train)
    monkeypatch.setattr(demo, "evaluate", Mock(return_value=REPORT))
    monkeypatch.setattr(demo, "publish", published)
    path = tmp_path / "report.json"
    arguments = [*flags, "--store", str(tmp_path), "--version", "7", "--report", str(path)]
    done = CliRunner().invoke(demo.app, arguments)
    assert (done.exit_code, done.stdout) == (0, as_text(REPORT) + "\n")
    assert json.loads(path.read_text()) == REPORT.to_json()
    assert train.call_args.args[1] == seeds
    assert published.call_args.args[0] is train.return_value[0]
    assert (published.call_args.args[2], published.call_args.kwargs["seed"]) == ("7", seeds[0])


@pytest.mark.parametrize(
    "arguments",
    [["--seeds", "0", "1"], ["5", "--version", "1"], ["--version", "1", "--seeds"], ["--version", "1", "x"]],
)
def test_a_wrong_command_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(demo.app, arguments).exit_code == 2


def test_no_training_data_comes_from_a_held_out_goal() -> None:
    held_out = set(held_out_goals())
    assert len(held_out) == 80
    assert not held_out & set(train_goals())
    assert not held_out & set(pretraining_goals())
