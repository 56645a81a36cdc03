"""Writing rollout files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.types import Step, Trajectory
from tests.training.guessing import NUMBERS, Guesser, Guessing
from tests.training.rollouts.samples import rollouts
from training.rollouts.collect import collect
from training.rollouts.files import write_rollouts
from training.rollouts.reading import read
from training.rollouts.rollout import Rollout


def guessed(count: int, seed: int = 0) -> list[Rollout]:
    return list(collect(NUMBERS, Guessing, Guesser(), count=count, seed=seed))


@given(st.lists(rollouts(), max_size=4))
def test_rollouts_read_back_as_written(tmp_path_factory: pytest.TempPathFactory, written: list[Rollout]) -> None:
    path = tmp_path_factory.mktemp("rollouts") / "rollouts.jsonl"
    assert write_rollouts(path, written) == len(written)
    reading = read([path])
    assert (reading.rollouts, reading.faults) == (written, [])


def test_a_line_break_in_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    written = [replace(guessed(1)[0], observation='a "quote", a\r\nline break\u2028and an ü')]
    write_rollouts(tmp_path / "rollouts.jsonl", written)
    assert read([tmp_path / "rollouts.jsonl"]).whole() == written


def test_a_file_has_one_object_of_the_documented_fields_a_line(tmp_path: Path) -> None:
    rollout = Rollout(Trajectory("t", (Step("o", "ä"),)), 1.0, False, "g", "end", metadata={"seed": 3})
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout, rollout])
    assert [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()] == 2 * [
        {
            "task": "t",
            "steps": [{"observation": "o", "action": "ä"}],
            "query": "g",
            "outcome": 1.0,
            "observation": "end",
            "metadata": {"seed": 3},
        }
    ]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[Rollout]:
        yield from guessed(2, seed=1)
        raise RuntimeError("interrupted")

    path = tmp_path / "rollouts.jsonl"
    old = guessed(3)
    write_rollouts(path, old)
    with pytest.raises(RuntimeError, match="interrupted"):
        write_rollouts(path, failing())
    assert read([path]).whole() == old
    assert list(tmp_path.iterdir()) == [path]
