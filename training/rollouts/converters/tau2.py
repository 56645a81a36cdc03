"""Results of tau2-bench: one JSON object with ``info``, ``tasks`` and ``simulations`` (its ``Results``, a2c0247).

The agent's view is kept: what the simulated user does with tools of its own is left out, as the agent never saw it. The
domain's policy becomes the system turn, without the instructions that tau2's own agent puts around it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from agentprm.errors import InvalidRequest
from training.rollouts.converters.contract import Converter, Fields, LeftOut, objects

_TRUNCATED: Final = ("max_steps", "timeout", "context_window_exceeded")
_NOT_THE_AGENT: Final = ("infrastructure_error", "unexpected_error", "user_error")


class _Call(BaseModel):
    id: str = ""
    name: str
    arguments: dict[str, Any]
    requestor: str = "assistant"


class _Message(BaseModel):
    role: str
    id: str | None = None
    content: str | None = None
    tool_calls: list[_Call] | None = None
    requestor: str = "assistant"
    tool_messages: "list[_Message]" = []


class _Environment(BaseModel):
    domain_name: str = ""
    policy: str = ""


class _Info(BaseModel):
    environment_info: _Environment = _Environment()


class _Reward(BaseModel):
    reward: float


class _Simulation(BaseModel):
    info_of_run: _Info
    id: str = ""
    task_id: int | str
    termination_reason: str
    reward_info: _Reward | None = None
    messages: list[_Message] | None = None
    trial: int | None = None
    policy: str | None = None


def _recognises(record: Fields) -> bool:
    return record.keys() >= {"info", "tasks"}


def _parts(record: Fields) -> Iterable[Fields]:
    if "simulations" not in record:
        raise InvalidRequest("its simulations lie in files beside it; save the results of tau2 as one file")
    return ({**simulation, "info_of_run": record["info"]} for simulation in objects(record, "simulations"))


def _line(record: Fields, _: Path) -> Fields | LeftOut:
    run = _Simulation.model_validate(record)
    if run.termination_reason in _NOT_THE_AGENT:
        return LeftOut(f"runs of tau2 that ended in {run.termination_reason}")
    if run.messages is None:
        return LeftOut("runs of tau2 by voice")
    environment = run.info_of_run.environment_info
    policy = run.policy or environment.policy
    system = [{"role": "system", "content": policy}] if policy else []
    return {
        "messages": system + list(_turns(run.messages)),
        "outcome": run.reward_info.reward if run.reward_info else None,
        "truncated": run.termination_reason in _TRUNCATED,
        "query": f"tau2-{environment.domain_name}-{run.task_id}",
        "metadata": {"source": "tau2", "task_id": run.task_id, "trial": run.trial, "end": run.termination_reason},
    }


def _turns(messages: Iterable[_Message]) -> Iterator[Fields]:
    for message in messages:
        if message.tool_messages:
            yield from _turns(message.tool_messages)
        elif message.role == "tool":
            if message.requestor == "assistant":
                yield {"role": "tool", "content": message.content, "tool_call_id": message.id}
        elif message.role == "assistant" or message.content:
            yield _turn(message)


def _turn(message: _Message) -> Fields:
    turn: Fields = {"role": message.role, "content": message.content}
    if message.role == "assistant" and message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return turn


TAU2: Final = Converter("tau2", _recognises, _line, _parts, unit="simulation")
