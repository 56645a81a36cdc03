"""A critic reads its model as the manifest says."""

import math
from pathlib import Path

import pytest

from agentprm.types import State, Step, Trajectory
from model_store.format.manifest import FORMAT, Manifest
from model_store.format.recipe import Calibration, ScoreRecipe
from model_store.format.store import Store
from model_store.network.model import save_model
from tests.training.guessing import random_model, renderer
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.demo import SCORE
from training.evaluation.critic import Critic
from training.study.textcraft import load_critic

CALIBRATED = ScoreRecipe(head="linear", activation="sigmoid", read="action_end", calibration=Calibration(a=2.0, b=1.0))
TRAJECTORIES = [
    Trajectory("guess", (Step("", "1"), Step("higher", "3"))),
    Trajectory("guess", (Step("", "2"),)),
]


def calibrated(promise: float) -> float:
    raw = math.log(promise / (1 - promise))
    return 1 / (1 + math.exp(-(2 * raw + 1)))


def test_the_recipe_decides_how_a_raw_score_becomes_a_promise() -> None:
    plain = Critic(random_model(), renderer(), SCORE).step_promises(TRAJECTORIES)
    found = Critic(random_model(), renderer(), CALIBRATED).step_promises(TRAJECTORIES)
    assert [len(promises) for promises in plain] == [2, 1]
    for expected, promises in zip(plain, found, strict=True):
        assert promises == pytest.approx([calibrated(promise) for promise in expected])


def test_an_action_is_worth_what_its_step_is_worth() -> None:
    critic = Critic(random_model(), renderer(), CALIBRATED)
    steps = critic.step_promises(TRAJECTORIES)
    states = [State("guess"), State("guess", TRAJECTORIES[0].steps[:1], "higher")]
    actions = critic.action_promises(states, [["1", "2"], ["3"]])
    assert actions[0] == pytest.approx([steps[0][0], steps[1][0]])
    assert actions[1] == pytest.approx([steps[0][1]])


def test_a_loaded_critic_follows_its_manifest(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_model(random_model(), source)
    build_tokenizer(["guess higher lower 0 1 2 3"]).save(str(source / "tokenizer.json"))
    manifest = Manifest(
        format=FORMAT,
        name="guesser",
        version="1",
        base_model="random Qwen2",
        score=CALIBRATED,
        template=TEMPLATE,
        render_version=1,
        dtype="float32",
        context_length=32,
        training={},
        evaluation={},
    )
    store = Store(tmp_path / "store")
    store.publish(source, manifest)
    expected = Critic(random_model(), renderer(), CALIBRATED).step_promises(TRAJECTORIES)
    for promises, loaded in zip(expected, load_critic(store, "guesser").step_promises(TRAJECTORIES), strict=True):
        assert loaded == pytest.approx(promises, abs=1e-6)
