"""Recordings of one trajectory, and its outcome, in lines of their own."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentprm.types import Conversation, Step, Trajectory
from tests.training.rollouts.samples import write_jsonl
from training.rollouts.reading import Reading, read

STEPS = [{"observation": f"room {number}", "action": f"go {number}"} for number in range(3)]
FIRST, SECOND, THIRD = ({"trajectory_id": "a", "task": "leave", "steps": STEPS[:number]} for number in (1, 2, 3))
WON = {"trajectory_id": "a", "outcome": 1.0}
CHAT = [{"role": "user", "content": "leave"}, {"role": "assistant", "content": "go 0"}]


def joined(tmp_path: Path, *lines: dict[str, Any]) -> Reading:
    return read([write_jsonl(tmp_path / "recorded.jsonl", list(lines))])


def test_the_longest_recording_gets_the_outcome(tmp_path: Path) -> None:
    reading = joined(tmp_path, FIRST, THIRD, WON, SECOND, {**WON, "query": "door"})
    (rollout,) = reading.whole()
    assert rollout.history == Trajectory("leave", tuple(Step(**step) for step in STEPS))
    assert (rollout.outcome, rollout.query, rollout.trajectory_id) == (1.0, "door", "a")
    assert not any("left out" in note for note in reading.notes)


def test_an_outcome_may_be_in_another_file(tmp_path: Path) -> None:
    recorded = write_jsonl(tmp_path / "recorded.jsonl", [SECOND])
    outcomes = write_jsonl(tmp_path / "outcomes.jsonl", [WON])
    assert read([outcomes, recorded]).whole() == read([tmp_path]).whole()


def test_different_outcomes_of_one_trajectory_are_a_fault(tmp_path: Path) -> None:
    (fault,) = joined(tmp_path, SECOND, WON, {**WON, "outcome": 0}).faults
    assert str(fault).endswith(
        "recorded.jsonl, line 3: outcome differs among the lines of one trajectory_id: 0.0 and 1.0"
    )


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    proposal = {**SECOND, "steps": [STEPS[0], {"action": "jump"}]}
    lost = {"trajectory_id": "b", "outcome": 1}
    running = {"trajectory_id": "c", "task": "stay", "steps": STEPS[:1]}
    cut = {**running, "trajectory_id": "d", "truncated": True}
    reading = joined(tmp_path, FIRST, SECOND, proposal, THIRD, WON, lost, running, cut)
    assert [rollout.trajectory_id for rollout in reading.whole()] == ["a", "d"]
    assert reading.notes[:3] == [
        "left out: 1 outcomes of no trajectory",
        "left out: 1 recordings that are no beginning of the longest one of their trajectory",
        "left out: 1 trajectories without an outcome that were not truncated",
    ]


def test_of_proposals_for_the_last_step_the_outcome_names_the_one_taken(tmp_path: Path) -> None:
    proposals = [{**SECOND, "steps": [STEPS[0], {"action": action}]} for action in ("jump", "wait")]
    assert "longest recordings differ" in joined(tmp_path, *proposals, WON).notes[0]
    (rollout,) = joined(tmp_path, *proposals, {**WON, "action": "wait"}).whole()
    assert rollout.trajectory.steps[-1].action == "wait"
    assert "is not the last one" in joined(tmp_path, *proposals, {**WON, "action": "sit"}).faults[0].reason


def test_an_agent_that_only_ranks_gives_its_last_action_with_the_outcome(tmp_path: Path) -> None:
    state = {**FIRST, "observation": "room 1"}
    (rollout,) = joined(tmp_path, FIRST, state, {**WON, "action": "go 1"}).whole()
    assert rollout.trajectory.steps == tuple(Step(**step) for step in STEPS[:2])
    start = {"trajectory_id": "a", "messages": CHAT[:1]}
    (rollout,) = joined(tmp_path, start, {**WON, "action": CHAT[1]}).whole()
    (again,) = joined(tmp_path, {**start, "messages": CHAT}, {**WON, "action": "go 0"}).whole()
    assert isinstance(rollout.history, Conversation)
    assert rollout.history == again.history
    assert rollout.history.messages[-1].content == "go 0"


def test_a_recording_from_before_the_first_action_is_no_fault_of_a_running_agent(tmp_path: Path) -> None:
    reading = joined(tmp_path, {"trajectory_id": "a", "messages": CHAT[:1]})
    assert (reading.faults, len(reading.notes)) == ([], 1)


EVERY: list[dict[str, Any]] = [
    FIRST,
    SECOND,
    THIRD,
    WON,
    {**WON, "query": "door"},
    {**SECOND, "observation": "room 2"},
    {**THIRD, "observation": "out"},
    {**THIRD, "steps": [*STEPS[:2], {"action": "jump"}]},
    {"trajectory_id": "a", "outcome": 0.0},
    {"trajectory_id": "a", "outcome": 1.0, "action": "go 2"},
    {"trajectory_id": "b", "messages": CHAT},
    {"trajectory_id": "b", "truncated": True},
    {"task": "alone", "steps": STEPS, "outcome": 0.5},
]


@given(st.lists(st.sampled_from(EVERY), unique_by=id), st.randoms(use_true_random=False), st.integers(0, 13))
def test_the_order_of_lines_and_files_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]], random: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    shuffled = random.sample(lines, len(lines))
    one = read([write_jsonl(folder / "one.jsonl", lines)])
    two = read([write_jsonl(folder / "b.jsonl", shuffled[cut:]), write_jsonl(folder / "a.jsonl", shuffled[:cut])])
    assert sorted(map(repr, one.rollouts)) == sorted(map(repr, two.rollouts))
    assert one.notes == two.notes
    assert sorted(fault.reason for fault in one.faults) == sorted(fault.reason for fault in two.faults)


def test_attempts_at_the_same_text_belong_together_where_no_query_says_so(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "system", "content": "be brief"}, *CHAT], "outcome": 1}
    again = json.loads(json.dumps(chat))
    again["messages"][-1]["content"] = "go 1"
    other = {**chat, "messages": [{"role": "user", "content": "stay"}, CHAT[1]]}
    first, second, third = (rollout.query for rollout in joined(tmp_path, chat, again, other).whole())
    assert first == second != third
