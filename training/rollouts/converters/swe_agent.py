"""Trajectories of SWE-agent (``.traj``, SWE-agent/SWE-agent 3ea751c) with the outcomes that SWE-bench reports.

A ``.traj`` does not say whether its patch resolved the issue. The report of SWE-bench does, as a summary
(``resolved_ids``) or one for each instance (``{"<instance>": {"resolved": true}}``); it is looked for beside the
trajectory and in the two directories above. Demonstrations in the history are left out: they are not the agent's steps.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from agentprm.errors import InvalidRequest
from agentprm.rollouts import parse
from training.rollouts.converters.contract import Converter, Fields, LeftOut

_TRUNCATED: Final = ("cost", "context", "total_execution_time", "command_timeout", "api", "environment_error")
"""Ends of the exit status of a run that something else than the agent cut."""
_LEVELS: Final = 3  # directories in which a report is looked for


class _Info(BaseModel):
    exit_status: str | None = None


class _Turn(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None
    is_demo: bool = False
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_ids: list[str] | None = None
    thinking_blocks: list[dict[str, Any]] | None = None


class _Run(BaseModel):
    history: list[_Turn]
    info: _Info = _Info()


def _is_report(record: Fields) -> bool:
    return "resolved_ids" in record or _holds(record, "resolved")


def _holds(record: Fields, field: str) -> bool:
    """Returns whether a record has an object with this field for each instance."""
    return bool(record) and all(isinstance(held, dict) and field in held for held in record.values())


def _recognises(record: Fields) -> bool:
    is_run = isinstance(record.get("history"), list) or "attempts" in record
    return (
        is_run or _is_report(record) or _holds(record, "model_patch") or record.keys() >= {"instance_id", "model_patch"}
    )


def _parts(record: Fields) -> list[Fields]:
    """Returns the run. Reports and predictions are no runs: they are read where a run needs them."""
    return [record] if "history" in record or "attempts" in record else []


def _line(record: Fields, path: Path) -> Fields | LeftOut:
    if "history" not in record:
        return LeftOut("runs of SWE-agent of which no attempt was chosen")
    run = _Run.model_validate(record)
    instance = path.name.split(".traj")[0]
    status = run.info.exit_status or ""
    return {
        "messages": [_message(turn) for turn in run.history if not turn.is_demo],
        "outcome": _outcome(instance, path.parent),
        "truncated": any(f"exit_{cut}" in status for cut in _TRUNCATED),
        "query": instance,
        "metadata": {"source": "swe-agent", "instance_id": instance, "exit_status": status},
    }


def _message(turn: _Turn) -> Fields:
    message: Fields = {"role": turn.role, "content": turn.content, "tool_calls": turn.tool_calls}
    if turn.tool_call_ids:
        message["tool_call_id"] = turn.tool_call_ids[0]
    if thoughts := [block["thinking"] for block in turn.thinking_blocks or () if block.get("thinking")]:
        message["reasoning_content"] = "\n".join(thoughts)
    return message


def _outcome(instance: str, directory: Path) -> float | None:
    """Returns 1 or 0 as the nearest report that knows the instance says, None if none does."""
    for level in (directory, *directory.absolute().parents[: _LEVELS - 1]):
        for path in sorted(level.glob("*.json")):
            outcomes = _reported(path, path.stat().st_mtime_ns)
            if instance in outcomes:
                return outcomes[instance]
    return None


@lru_cache(maxsize=1024)
def _reported(path: Path, _: int) -> dict[str, float]:
    """Returns the outcomes in a report; the second argument is the file's time, by which a new report is seen."""
    try:
        record = parse(path.read_bytes())
    except InvalidRequest:
        return {}
    if not isinstance(record, dict) or not _is_report(record):
        return {}
    if "resolved_ids" not in record:
        return {instance: float(report["resolved"] is True) for instance, report in record.items()}
    failed = (*record.get("unresolved_ids", ()), *record.get("empty_patch_ids", ()))
    return dict.fromkeys(failed, 0.0) | dict.fromkeys(record["resolved_ids"], 1.0)


SWE_AGENT: Final = Converter("swe-agent", _recognises, _line, _parts, unit="run")
