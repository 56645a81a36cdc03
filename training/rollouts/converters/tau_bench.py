"""Results of tau-bench: a JSON list of runs (``EnvRunResult`` of sierra-research/tau-bench, 59a200c).

The chat begins with the domain's policy as its system turn. The file does not hold the tools.
"""

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from training.rollouts.converters.contract import Converter, Fields, LeftOut
from training.rollouts.query import digest


class _Task(BaseModel):
    instruction: str = ""


class _Info(BaseModel):
    task: _Task = _Task()


class _Result(BaseModel):
    task_id: int | str
    reward: float
    info: _Info
    traj: list[dict[str, Any]]
    trial: int = 0


def _recognises(record: Fields) -> bool:
    return record.keys() >= {"task_id", "reward", "traj"}


def _line(record: Fields, _: Path) -> Fields | LeftOut:
    result = _Result.model_validate(record)
    if not result.traj:
        return LeftOut("runs of tau-bench that failed before the agent acted")
    return {
        "messages": result.traj,
        "outcome": result.reward,
        # Domains number their tasks alike; the file does not say which domain it is.
        "query": f"tau-bench-{result.task_id}-{digest(result.info.task.instruction)}",
        "metadata": {"source": "tau-bench", "task_id": result.task_id, "trial": result.trial},
    }


TAU_BENCH: Final = Converter("tau-bench", _recognises, _line)
