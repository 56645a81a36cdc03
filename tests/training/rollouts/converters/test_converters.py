"""Records in the shape that other projects write, made by hand after their code and their published files.

tau-bench (MIT), tau2-bench (MIT), SWE-agent (MIT), AgentGym (MIT) and Inspect (MIT); AgentProcessBench has no licence
file, so nothing here is taken from its data.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agentprm.types import Conversation, Step, Trajectory
from training.rollouts.reading import Reading, read

USER = {"role": "user", "content": "Cancel order 7."}
TOOL = {"name": "cancel", "description": "Cancels an order.", "parameters": {"type": "object", "properties": {}}}


def reading_of(path: Path, record: Any) -> Reading:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return read([path])


def chat_of(reading: Reading) -> Conversation:
    (rollout,) = reading.whole()
    assert isinstance(rollout.history, Conversation)
    return rollout.history


def test_tau_bench(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "cancel", "arguments": '{"order": 7}'}}
    turns = [
        {"role": "system", "content": "# Policy"},
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call], "function_call": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "name": "cancel", "content": "cancelled"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "###STOP###"},
    ]
    info: dict[str, Any] = {"task": {"user_id": "u", "instruction": "You are u.", "actions": []}, "user_cost": 0.1}
    run = {"task_id": 3, "reward": 1.0, "info": info, "traj": turns, "trial": 0}
    failed = {"task_id": 3, "reward": 0.0, "info": {"error": "503", "traceback": "..."}, "traj": [], "trial": 2}
    other_domain = {**run, "info": {"task": {**info["task"], "instruction": "You are v."}}}
    reading = reading_of(
        tmp_path / "gpt-4o-retail.json", [run, {**run, "trial": 1, "reward": 0.0}, failed, other_domain]
    )
    first, second, other = reading.whole()
    assert (first.steps, first.outcome, second.outcome) == (2, 1, 0)
    assert first.query == second.query != other.query
    assert reading.notes[0] == "left out: 1 runs of tau-bench that failed before the agent acted"


def tau2_results() -> dict[str, Any]:
    messages = [
        {
            "role": "assistant",
            "content": "Hi! How can I help you today?",
            "tool_calls": None,
            "turn_idx": 0,
            "cost": 0.0,
        },
        {**USER, "tool_calls": None, "turn_idx": 1, "is_audio": False},
        {
            "role": "user",
            "content": None,
            "tool_calls": [{"id": "u1", "name": "reboot", "arguments": {}, "requestor": "user"}],
        },
        {"role": "tool", "id": "u1", "content": "rebooted", "requestor": "user", "error": False},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a1", "name": "cancel", "arguments": {"order": 7}}],
        },
        {"role": "tool", "tool_messages": [{"id": "a1", "role": "tool", "content": "ok", "requestor": "assistant"}]},
        {"role": "assistant", "content": "Done.", "raw_data": {"id": "x"}},
        {"role": "user", "content": "###STOP###"},
    ]
    run = {"id": "s", "task_id": "5", "termination_reason": "user_stop", "reward_info": {"reward": 1.0}, "trial": 0}
    return {
        "info": {"environment_info": {"domain_name": "telecom", "policy": "# Policy", "tool_defs": None}},
        "tasks": [],
        "simulations": [
            {**run, "messages": messages},
            {**run, "messages": messages, "termination_reason": "max_steps", "reward_info": {"reward": 0.0}},
            {**run, "messages": messages[:2], "termination_reason": "infrastructure_error", "reward_info": None},
        ],
    }


def test_tau2_keeps_what_the_agent_saw(tmp_path: Path) -> None:
    reading = reading_of(tmp_path / "airline.json", tau2_results())
    first, second = reading.whole()
    assert isinstance(first.history, Conversation)
    assert [turn.role for turn in first.history.messages] == [
        "system",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert "rebooted" not in str(first.history)
    assert first.history.messages[3].tool_calls[0].arguments == '{"order": 7}'
    assert (first.outcome, first.truncated, second.outcome, second.truncated) == (1, False, 0, True)
    assert first.query == second.query == "tau2-telecom-5"
    assert reading.notes[0] == "left out: 1 runs of tau2 that ended in infrastructure_error"


def test_results_of_tau2_in_several_files_are_a_fault_that_says_so(tmp_path: Path) -> None:
    results = {name: value for name, value in tau2_results().items() if name != "simulations"}
    (fault,) = reading_of(tmp_path / "results.json", results).faults
    assert fault.reason == "its simulations lie in files beside it; save the results of tau2 as one file"


def swe_agent_run() -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    of_agent = {"agent": "main", "message_type": "action"}
    history = [
        {"role": "system", "content": "SETTING", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": "a demonstration", "is_demo": True, "agent": "main"},
        {"role": "assistant", "content": "demonstrated", "is_demo": True, "agent": "main", "action": "ls"},
        {"role": "user", "content": [{"type": "text", "text": "ISSUE: a colon is missing"}], "agent": "main"},
        {
            "role": "assistant",
            "content": "Look.",
            "thought": "Look.",
            "action": "ls",
            "tool_calls": [call],
            **of_agent,
            "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}],
        },
        {"role": "tool", "content": "OBSERVATION: a.py", "agent": "main", "tool_call_ids": ["c1"]},
        {"role": "assistant", "content": "submit", "thought": "", "action": "submit", "tool_calls": None, **of_agent},
    ]
    step = {"action": "ls", "observation": "a.py", "response": "Look.", "thought": "Look.", "state": {}, "query": []}
    return {"trajectory": [step], "history": history, "info": {"exit_status": "submitted"}, "environment": "main"}


def test_swe_agent_takes_its_outcome_from_the_report_of_swe_bench(tmp_path: Path) -> None:
    for name in ("one__one-1", "two__two-2"):
        reading_of(tmp_path / "run" / name / f"{name}.traj", swe_agent_run())
    (tmp_path / "run" / "preds.json").write_text('{"one__one-1": {"model_patch": "", "instance_id": "one__one-1"}}')
    assert read([tmp_path]).notes == ["left out: 2 trajectories without an outcome that were not truncated"]
    report = {"resolved_ids": ["one__one-1"], "unresolved_ids": ["two__two-2"], "submitted_ids": ["one__one-1"]}
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    first, second = read([tmp_path]).whole()
    assert (first.query, first.outcome, second.outcome, first.steps) == ("one__one-1", 1, 0, 2)
    assert "demonstrat" not in str(first.history)
    assert isinstance(first.history, Conversation)
    assert first.history.messages[2].reasoning == "hm"


def test_a_run_of_swe_agent_that_ran_out_of_money_is_truncated(tmp_path: Path) -> None:
    run = {**swe_agent_run(), "info": {"exit_status": "submitted (exit_cost)"}}
    (tmp_path / "report.json").write_text('{"a__a-1": {"resolved": false, "patch_exists": true}}')
    (rollout,) = reading_of(tmp_path / "a__a-1.traj", run).whole()
    assert (rollout.truncated, rollout.outcome) == (True, 0)


def test_agentgym(tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"from": "human", "loss": None, "value": "You are web shopping."},
        {"from": "gpt", "loss": False, "value": "Ok."},
        {"from": "human", "loss": None, "value": "WebShop [SEP] Search"},
        {"from": "gpt", "loss": True, "value": "Thought:\nsearch\n\nAction:\nsearch[shorts]"},
        {"from": "human", "loss": None, "value": "Results"},
    ]
    record = {"conversations": turns, "item_id": "webshop_6", "reward": 0.5, "success": 0}
    (rollout,) = reading_of(tmp_path / "inference.json", [record]).whole()
    assert rollout.history == Trajectory("You are web shopping.", (Step("WebShop [SEP] Search", turns[3]["value"]),))
    assert (rollout.outcome, rollout.query, rollout.observation) == (0.5, "webshop_6", "Results")
    wrong = [{**record, "conversations": [turns[1]]}, {**record, "conversations": None}, {**record, "reward": -3}]
    assert [fault.reason for fault in reading_of(tmp_path / "wrong.json", wrong).faults] == [
        "conversations.0 must be of human: the two speak in turn (agentgym)",
        "conversations must be a list, not null (agentgym)",
        "outcome must be from 0 to 1, not -3.0 (agentgym)",
    ]


def inspect_log(**changes: Any) -> dict[str, Any]:
    attached = "attachment://0123456789abcdef"
    sample = {
        "id": 1,
        "epoch": 2,
        "uuid": "u",
        "messages": [
            {"id": "m1", "source": "input", **USER},
            {
                "role": "assistant",
                "source": "generate",
                "model": "m",
                "content": [
                    {"type": "reasoning", "reasoning": "think", "signature": "s", "redacted": False},
                    {"type": "text", "text": "I will.", "refusal": None},
                ],
                "tool_calls": [{"id": "c1", "function": "cancel", "arguments": {"order": 7}, "type": "function"}],
            },
            {
                "role": "tool",
                "content": "",
                "tool_call_id": "c1",
                "function": "cancel",
                "error": {"type": "timeout", "message": "too slow"},
            },
            {"role": "assistant", "content": attached},
        ],
        "scores": {"includes": {"value": "P", "answer": ""}},
        "events": [{"event": "model", "tools": [{**TOOL, "description": attached}]}],
        "attachments": {"0123456789abcdef": "kept apart"},
    }
    return {
        "version": 2,
        "status": "success",
        "eval": {"task": "orders"},
        "plan": {},
        "samples": [{**sample, **changes}],
    }


def test_inspect(tmp_path: Path) -> None:
    reading = reading_of(tmp_path / "log.json", inspect_log())
    chat = chat_of(reading)
    assert [turn.content for turn in chat.messages] == [USER["content"], ("I will.",), "Error: too slow", "kept apart"]
    assert (chat.messages[1].reasoning, chat.messages[1].tool_calls[0].name) == ("think", "cancel")
    assert json.loads(chat.tools[0])["function"]["description"] == "kept apart"
    assert (reading.rollouts[0].outcome, reading.rollouts[0].query) == (0.5, "orders/1")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"limit": {"type": "message", "limit": 4}}, "truncated=True"),
        ({"scores": {"length": {"value": 12}}}, "sample 1: outcome must be from 0 to 1, not 12 (inspect)"),
        ({"scores": None}, "left out: 1 trajectories without an outcome that were not truncated"),
        ({"error": {"message": "x"}}, "left out: 1 samples of Inspect that ended in an error or were declared invalid"),
        ({"messages": [{"role": "user"}]}, "sample 1: messages.0.content is missing (inspect)"),
    ],
)
def test_ends_of_inspect(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    reading = reading_of(tmp_path / "log.json", inspect_log(**changes))
    assert found in " ".join(map(str, (*reading.rollouts, *reading.faults, *reading.notes)))


def test_agent_process_bench(tmp_path: Path) -> None:
    record = {
        "data_source": "bfcl",
        "query_index": 4,
        "question": "Cancel order 7.",
        "messages": [USER, {"role": "assistant", "content": "a"}, USER, {"role": "assistant", "content": "b"}],
        "tools": [{"type": "function", "function": TOOL}],
        "step_labels": {"1": 0, "3": -1},
        "final_label": -1,
    }
    (rollout,) = reading_of(tmp_path / "bfcl.json", [record]).whole()
    assert (rollout.labels, rollout.outcome) == ((0.5, 0.0), 0)
    (fault,) = reading_of(tmp_path / "wrong.json", [{**record, "step_labels": {"0": 1}}]).faults
    assert fault.reason == "step_labels.0: messages.0 is not the assistant's (agent-process-bench)"
