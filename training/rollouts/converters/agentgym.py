"""Conversations of AgentGym: AgentTraj, and what its evaluation writes (WooooDyy/AgentGym, 3ef9235).

The first turn is the task's rules, which the model acknowledges; the turns after it are observations and actions.
AgentTraj holds no rewards: its lines have no outcome.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, Field

from agentprm.errors import InvalidRequest
from training.rollouts.converters.contract import Converter, Fields


class _Turn(BaseModel):
    speaker: Literal["human", "gpt"] = Field(alias="from")
    loss: bool | None = None
    value: str


class _Record(BaseModel):
    conversations: list[_Turn] = Field(min_length=1)
    item_id: str
    reward: float | None = None


def _recognises(record: Fields) -> bool:
    return record.keys() >= {"conversations", "item_id"}


def _line(fields: Fields, _: Path) -> Fields:
    record = _Record.model_validate(fields)
    turns = record.conversations
    for at, turn in enumerate(turns):
        if turn.speaker != ("human", "gpt")[at % 2]:
            raise InvalidRequest(f"conversations.{at} must be of {('human', 'gpt')[at % 2]}: the two speak in turn")
    acknowledged = len(turns) > 1 and turns[1].loss is False
    texts = [turn.value for turn in turns[2 if acknowledged else 1 :]]
    observations, actions = (texts[::2], texts[1::2]) if acknowledged else (["", *texts[1::2]], texts[::2])
    line: Fields = {
        "task": turns[0].value,
        "steps": [{"observation": seen, "action": done} for seen, done in zip(observations, actions, strict=False)],
        "outcome": record.reward,
        "query": record.item_id,
        "metadata": {"source": "agentgym", "item_id": record.item_id},
    }
    if len(observations) > len(actions):
        line["observation"] = observations[-1]
    return line


AGENTGYM: Final = Converter("agentgym", _recognises, _line)
