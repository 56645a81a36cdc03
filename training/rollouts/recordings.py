"""The recordings of one trajectory: which of them is the longest, and which are no beginning of it.

A running agent is recorded each time that it asks for scores, each time with one more step. Of the shorter recordings
only a digest is kept.
"""

import hashlib
from dataclasses import dataclass, field

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.rollouts import TrajectoryLine
from training.rollouts.places import Place

_Recording = tuple[Place, TrajectoryLine]


def _digests(line: TrajectoryLine) -> list[bytes]:
    """Returns a digest of the history up to each turn; the first is that of what stands before all turns."""
    state = hashlib.blake2b(digest_size=16)
    state.update(repr((line.task, line.tools, line.messages is None, line.reasoning)).encode())
    digests = [state.digest()]
    for turn in line.messages or line.steps or ():
        state.update(b"\0" + turn.model_dump_json(exclude_none=True).encode())
        digests.append(state.digest())
    return digests


@dataclass(slots=True)
class Recordings:
    """What was recorded under one id, whatever the order."""

    longest: dict[bytes, _Recording] = field(default_factory=dict)
    _digests: list[bytes] = field(default_factory=list)  # of one of the longest
    _shorter: set[tuple[int, bytes]] = field(default_factory=set)  # length and digest of each other

    def add(self, place: Place, line: TrajectoryLine) -> None:
        digests = _digests(line)
        if len(digests) > len(self._digests):
            self._shorter |= {(len(self._digests), digest) for digest in self.longest}
            self.longest, self._digests = {}, digests
        if len(digests) < len(self._digests):
            self._shorter.add((len(digests), digests[-1]))
        else:
            self.longest[digests[-1]] = _fuller((place, line), self.longest.get(digests[-1], (place, line)))

    @property
    def strays(self) -> int:
        """The number of shorter recordings that are no beginning of a longest one: proposals that were not taken."""
        if not self._shorter:
            return 0
        beginnings = {known for _, line in self.longest.values() for known in enumerate(_digests(line), start=1)}
        return len(self._shorter - beginnings)


def _fuller(one: _Recording, other: _Recording) -> _Recording:
    """Returns the one of two equal histories that knows more of what came after it, else the earlier one."""
    first, second = sorted((one, other), key=lambda recording: recording[0])
    return second if _knowledge(second[1]) > _knowledge(first[1]) else first


def _knowledge(line: TrajectoryLine) -> tuple[bool, bool, str]:
    return bool(line.labels or line.continuations), line.observation is not None, line.observation or ""


def with_action(line: TrajectoryLine, action: str | wire.Message) -> TrajectoryLine | None:
    """Returns the trajectory with its last action, which an agent that only ranks never sent; None if it has another.

    Raises:
        InvalidRequest: a message does not go with task and steps, or labels of the steps not with one more step.
    """
    if line.labels or line.continuations:
        raise InvalidRequest("action does not go with a trajectory that has labels or continuations")
    if line.messages is None:
        return _with_step(line, action)
    turn = wire.Message(role="assistant", content=action) if isinstance(action, str) else action
    turn = turn.model_copy(update={"role": "assistant"})
    if line.messages[-1].role == "assistant":
        return line if line.messages[-1] == turn else None
    return line.model_copy(update={"messages": [*line.messages, turn]})


def _with_step(line: TrajectoryLine, action: str | wire.Message) -> TrajectoryLine | None:
    if not isinstance(action, str):
        raise InvalidRequest("action must be a text: the trajectory has task and steps")
    steps = list(line.steps or ())
    if line.observation is None and steps:
        return line if steps[-1].action == action else None
    step = wire.StepBody(observation=line.observation or "", action=action)
    return line.model_copy(update={"steps": [*steps, step], "observation": None})
