"""Lines of rollout files, and what is said of a wrong one."""

import json
from typing import Any

import pytest

from agentprm.errors import InvalidRequest
from agentprm.rollouts import OutcomeLine, TrajectoryLine, read_line, write_line

STEPS = [{"observation": "a door", "action": "open it"}]
LINE: dict[str, Any] = {"task": "leave", "steps": STEPS, "outcome": 1}
CHAT = [{"role": "user", "content": "leave"}, {"role": "assistant", "content": "open the door"}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"", "it is empty"),
        (b'{"task": "lea', "it is not JSON: EOF while parsing a string at character 13"),
        (b"[]", "a line must be a JSON object, not a list"),
        (b"[" * 100_000, "it is not JSON: recursion limit exceeded"),
        ("{}".encode("utf-16"), "it is UTF-16; save the file as UTF-8"),
        ({"outcome": 1}, "it is no trajectory, which has task or messages, and no outcome, which has trajectory_id"),
        ({**LINE, "outcome": 1.5}, "outcome must be from 0 to 1, not 1.5"),
        ({**LINE, "outcome": float("nan")}, "outcome must be from 0 to 1, not nan"),
        ({**LINE, "outcome": "good"}, "outcome must be a number, not a text"),
        ({**LINE, "messages": CHAT}, "give either task (with steps) or messages"),
        ({**LINE, "truncated": True, "terminated": True}, "exactly one of terminated and truncated must be true"),
        ({**LINE, "labels": [1, 0]}, "labels must have one entry for each step: 1, not 2"),
        ({"messages": CHAT, "continuations": [[1], [0]]}, "continuations must have one entry for each step: 1, not 2"),
        ({**LINE, "continuations": [[1, 7]]}, "continuations.0.1 must be from 0 to 1, not 7"),
        ({**LINE, "reward": 1}, "unknown field reward"),
        ({**LINE, "steps": [{"action": "go", "score": 1}]}, "unknown field score in steps.0"),
        ({**LINE, "steps": [{"observation": "a door"}]}, "steps.0.action is missing"),
        ({**LINE, "steps": "open"}, "steps must be a list, not a text"),
        ({**LINE, "query": ""}, "query must not be empty"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content must be a text or a list, not a number"),
        ({"messages": CHAT, "observation": "x"}, "observation goes with task"),
        ({"trajectory_id": "a"}, "outcome is missing; only a truncated trajectory may lack it"),
        ({"trajectory_id": "a", "outcome": 1, "action": 3}, "action must be a text or an object, not a number"),
    ],
)
def test_a_wrong_line_is_told_in_one_sentence(line: bytes | dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_line(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert caught.value.message.startswith(sentence)


def test_no_sentence_quotes_what_an_agent_said() -> None:
    for wrong in ({**LINE, "steps": [{"action": "secret", "score": 1}]}, {"messages": [{"role": "secret"}]}):
        with pytest.raises(InvalidRequest) as caught:
            read_line(json.dumps(wrong).encode())
        assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        TrajectoryLine.model_validate({**LINE, "labels": [None], "continuations": [[1, 0]], "metadata": {"seed": 3}}),
        TrajectoryLine.model_validate({"messages": CHAT, "trajectory_id": "a", "truncated": True}),
        OutcomeLine(trajectory_id="a", outcome=0.5, action="leave"),
    ],
)
def test_a_line_reads_back_as_written(line: TrajectoryLine | OutcomeLine) -> None:
    written = write_line(line)
    assert written.endswith(b"}\n")
    assert read_line(written) == line


def test_a_line_may_begin_with_the_mark_of_a_windows_editor() -> None:
    assert read_line(f"\ufeff{json.dumps(LINE)}\r\n".encode()) == TrajectoryLine.model_validate(LINE)
