"""Trajectories of AgentProcessBench with the labels that people gave their steps (RUCBM/AgentProcessBench, 0a42606).

A label is 1 (a good step), 0 (neither) or -1 (a bad one), by the index of the assistant's message; so is the final one.
Here they are 1, 0.5 and 0.
"""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from agentprm.errors import InvalidRequest
from training.rollouts.converters.contract import Converter, Fields
from training.rollouts.query import digest

_Label = Literal[-1, 0, 1]


class _Record(BaseModel):
    data_source: str = ""
    query_index: int | None = None
    question: str = ""
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    step_labels: dict[int, _Label]
    final_label: _Label


def _recognises(record: Fields) -> bool:
    return record.keys() >= {"messages", "step_labels"}


def _line(fields: Fields, _: Path) -> Fields:
    record = _Record.model_validate(fields)
    actions = [at for at, message in enumerate(record.messages) if message.get("role") == "assistant"]
    if wrong := sorted(record.step_labels.keys() - set(actions)):
        raise InvalidRequest(f"step_labels.{wrong[0]}: messages.{wrong[0]} is not the assistant's")
    labels = [record.step_labels.get(at) for at in actions]
    return {
        "messages": record.messages,
        "tools": record.tools,
        "outcome": _share(record.final_label),
        "labels": [None if label is None else _share(label) for label in labels],
        "query": f"{record.data_source}-{record.query_index}-{digest(record.question)}",
        "metadata": {"source": "agent-process-bench", "data_source": record.data_source},
    }


def _share(label: _Label) -> float:
    return (label + 1) / 2


AGENT_PROCESS_BENCH: Final = Converter("agent-process-bench", _recognises, _line)
