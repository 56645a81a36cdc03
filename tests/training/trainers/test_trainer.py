"""The trainer on a model of one layer."""

from pathlib import Path

from tests.training.trainers.tiny import run


def test_training_learns_its_outcomes(tmp_path: Path) -> None:
    trained = run(tmp_path)
    print(trained.progress)
    assert trained.packed
