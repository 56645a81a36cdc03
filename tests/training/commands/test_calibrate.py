"""``evaluate``, ``calibrate`` and ``report`` on a checkpoint that was trained on a part of its rollouts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentprm.types import Step, Trajectory
from model_store.format.manifest import FORMAT, Manifest
from model_store.format.store import Store
from model_store.network.model import save_model
from tests.training.guessing import random_model, renderer
from training.__main__ import run
from training.data.splits import split
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.demo import SCORE
from training.evaluation.critic import Critic
from training.rollouts.files import write_rollouts
from training.rollouts.lines import data_digest
from training.rollouts.rollout import Rollout

SHARE, SEED = 0.5, 3
LONG = Rollout(Trajectory("guess", (Step("", "1 " * 40),)), 1.0, truncated=False, query="long")


def guesses(queries: int) -> list[Rollout]:
    """Two attempts a query; the model finds the better one, and is far too bold."""
    histories = [Trajectory("guess", (Step("", str(n // 4)), Step("higher", str(n % 4)))) for n in range(16)]
    worth = [promises[-1] for promises in Critic(random_model(), renderer(), SCORE).step_promises(histories)]
    middle = sorted(worth)[8]
    return [
        Rollout(histories[n], float(worth[n] >= middle), truncated=False, query=f"q{query}")
        for query in range(queries)
        for n in ((7 * query) % 16, (7 * query + 5) % 16)
    ]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``trained.jsonl``, ``grown.jsonl`` and a ``store`` with ``guesser@1``."""
    path = tmp_path_factory.mktemp("given")
    (path / "source").mkdir()
    save_model(random_model(), path / "source")
    build_tokenizer(["guess higher lower 0 1 2 3"]).save(str(path / "source/tokenizer.json"))
    write_rollouts(path / "trained.jsonl", guesses(60))
    write_rollouts(path / "grown.jsonl", [*guesses(80), LONG])
    record = {"data": {"digest": data_digest(guesses(60))}, "split": {"held_out": SHARE, "seed": SEED}}
    manifest = Manifest(
        format=FORMAT,
        name="guesser",
        version="1",
        base_model="random Qwen2",
        score=SCORE,
        template=TEMPLATE,
        render_version=1,
        dtype="float32",
        context_length=32,
        training=record,
        evaluation={"step_auc": {"value": 0.125}},
    )
    store = Store(path / "store")
    store.publish(path / "source", manifest)
    store.publish(path / "source", replace(manifest, name="other", training={}, evaluation={"wins": 3}))
    return path


def command(given: Path, name: str, reference: str, *more: str) -> int:
    return run([name, reference, "--store", str(given / "store"), *more])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_calibrated_version_has_figures_of_its_own_on_queries_that_nothing_was_fitted_on(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    options = ("--rollouts", str(given / "trained.jsonl"), "--method", method, "--version", method)
    assert command(given, "calibrate", "guesser@1", *options, "--plot", str(tmp_path / "plot.svg")) == 0
    held_out = split(guesses(60), SHARE, SEED).held_out
    queries = {rollout.query for rollout in held_out}
    assert f"{2 * len(held_out)} labelled steps of {len(queries)} queries" in capsys.readouterr().out
    manifest = Store(given / "store").resolve(f"guesser@{method}").manifest
    assert manifest.evaluation["trajectories"] == len(held_out)
    assert manifest.evaluation["ece"]["value"] == round(manifest.training["calibration"]["after"]["ece"], 4)
    assert manifest.evaluation["brier"]["value"] < manifest.training["calibration"]["before"]["brier"]
    assert (manifest.score.calibration is None) == (method == "isotonic")
    page = (given / f"store/guesser/{method}/report.html").read_text()
    assert f"{manifest.evaluation['step_auc']['value']:.3f}" in page
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    assert command(given, "evaluate", f"guesser@{method}", "--rollouts", str(given / "trained.jsonl")) == 0
    assert "its calibration was fitted on these files" in capsys.readouterr().out


def test_of_a_file_that_has_grown_the_queries_of_training_can_be_left_out(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown, figures = str(given / "grown.jsonl"), tmp_path / "figures.json"
    sides = split([*guesses(80), LONG], SHARE, SEED)
    assert command(given, "evaluate", "guesser@1", "--rollouts", grown) == 1
    assert "; shorten them, or leave them out (--skip-too-long)" in capsys.readouterr().err
    assert command(given, "evaluate", "guesser@1", "--rollouts", grown, "--skip-too-long") == 0
    told = capsys.readouterr().out
    assert f"{len({rollout.query for rollout in sides.train})} of 81 queries are on the side of training" in told
    assert "left out: 1 trajectories that are too long: trajectory 161" in told
    options = ("--rollouts", grown, "--skip-too-long", "--held-out-only", "--json", str(figures))
    assert command(given, "evaluate", "guesser@1", *options) == 0
    assert json.loads(figures.read_text())["trajectories"] == len([one for one in sides.held_out if one != LONG])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["evaluate", "other@1", "--held-out-only"], "other@1 does not say which queries were held out"),
        (["evaluate", "guesser@1", "--json", "/nowhere/figures.json"], "there is no directory /nowhere"),
        (["calibrate", "guesser@1", "--version", "1"], "guesser@1"),
        (["report", "other@1"], "other@1 was not measured by `train`"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(
    given: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    rollouts = [] if arguments[0] == "report" else ["--rollouts", str(given / "trained.jsonl")]
    assert command(given, *arguments, *rollouts) in (1, 2)
    assert complaint in capsys.readouterr().err
