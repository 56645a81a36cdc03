"""Writing rollout files and reading them strictly."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from tests.training.guessing import NUMBERS, Guesser, Guessing
from training.rollouts.collect import collect
from training.rollouts.files import read_rollouts, write_rollouts
from training.rollouts.rollout import Rollout

texts = st.text(max_size=20)
steps = st.lists(st.builds(Step, texts, texts), max_size=3).map(tuple)
rollouts = st.builds(
    lambda trajectory, final, outcome, truncated, goal, seed: Rollout(
        trajectory, final, outcome, not truncated, truncated, goal, seed
    ),
    st.builds(Trajectory, texts, steps),
    texts,
    st.floats(0, 1),
    st.booleans(),
    texts,
    st.integers(),
)


def guessed(count: int, seed: int = 0) -> list[Rollout]:
    return list(collect(NUMBERS, Guessing, Guesser(), count=count, seed=seed))


@given(st.lists(rollouts, max_size=4))
def test_rollouts_read_back_as_written(tmp_path_factory: pytest.TempPathFactory, written: list[Rollout]) -> None:
    path = tmp_path_factory.mktemp("rollouts") / "rollouts.jsonl"
    assert write_rollouts(path, written) == len(written)
    assert read_rollouts(path) == written


def test_a_line_break_in_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    written = [replace(guessed(1)[0], final_observation='a "quote", a\r\nline break\u2028and an ü')]
    write_rollouts(tmp_path / "rollouts.jsonl", written)
    assert read_rollouts(tmp_path / "rollouts.jsonl") == written


def test_a_file_may_come_from_a_windows_editor(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    written = guessed(2)
    write_rollouts(path, written)
    lines = path.read_text().replace("\n", "\r\n")
    path.write_bytes(f"\ufeff{lines}".encode())
    assert read_rollouts(path) == written
    path.write_text(lines, encoding="utf-16")
    with pytest.raises(AgentPRMError, match=r"rollouts\.jsonl is not UTF-8; save it as UTF-8"):
        read_rollouts(path)


def test_a_file_has_one_object_of_the_documented_fields_a_line(tmp_path: Path) -> None:
    rollout = Rollout(
        Trajectory("t", (Step("o", "ä"),)), "end", 1.0, terminated=True, truncated=False, goal="g", seed=3
    )
    write_rollouts(tmp_path / "rollouts.jsonl", [rollout, rollout])
    assert (tmp_path / "rollouts.jsonl").read_text() == 2 * (
        '{"trajectory": {"task": "t", "steps": [{"observation": "o", "action": "\\u00e4"}]}, '
        '"final_observation": "end", "outcome": 1.0, "terminated": true, "truncated": false, "goal": "g", "seed": 3}\n'
    )


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def failing() -> Iterator[Rollout]:
        yield from guessed(2, seed=1)
        raise RuntimeError("interrupted")

    path = tmp_path / "rollouts.jsonl"
    old = guessed(3)
    write_rollouts(path, old)
    with pytest.raises(RuntimeError, match="interrupted"):
        write_rollouts(path, failing())
    assert read_rollouts(path) == old
    assert list(tmp_path.iterdir()) == [path]


def file_with(path: Path, changes: dict[str, Any]) -> Path:
    """A file of three rollouts, the second one changed."""
    write_rollouts(path, guessed(3))
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"outcome": "1"}, "outcome: Input should be a valid number, got '1'"),
        ({"outcome": True}, "outcome: Input should be a valid number, got True"),
        ({"outcome": 1.5}, "outcome: Input should be less than or equal to 1, got 1.5"),
        ({"outcome": -1}, "outcome: Input should be greater than or equal to 0, got -1"),
        ({"outcome": float("nan")}, "outcome: .*, got nan"),
        ({"truncated": True}, "terminated, truncated: exactly one"),
        ({"terminated": False}, "terminated, truncated: exactly one"),
        ({"terminated": 1}, "terminated: Input should be a valid boolean, got 1"),
        ({"seed": True}, "seed: Input should be a valid integer, got True"),
        ({"seed": 1.0}, "seed: Input should be a valid integer, got 1.0"),
        ({"goal": None}, "goal: Input should be a valid string, got None"),
        ({"trajectory": {"task": "t", "steps": [{"observation": "o"}]}}, r"trajectory\.steps\.0\.action: missing"),
        ({"trajectory": {"task": "t", "steps": [], "score": 1}}, r"trajectory\.score: unknown field, got 1"),
        ({"trajectory": None}, "trajectory: Input should be an object, got None"),
        ({"reward": 1.0}, "reward: unknown field, got 1.0"),
        ({"goal": 1, "seed": "x"}, "goal: .*; seed: "),
    ],
)
def test_a_bad_row_names_its_file_line_and_field(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = file_with(tmp_path / "rollouts.jsonl", changes)
    with pytest.raises(AgentPRMError, match=rf"rollouts\.jsonl, line 2: not a rollout \({complaint}"):
        read_rollouts(path)


def test_an_outcome_written_as_an_integer_is_a_number(tmp_path: Path) -> None:
    rollouts = read_rollouts(file_with(tmp_path / "rollouts.jsonl", {"outcome": 1}))
    assert rollouts[1].outcome == 1


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b"{} {}", b"\xff", b"[" * 100_000])
def test_a_row_that_is_no_object_names_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, guessed(1))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(AgentPRMError, match=r"line 2: not a rollout \((?!.*line 1)"):
        read_rollouts(path)
