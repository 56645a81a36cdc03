"""Lines of rollout files: one trajectory a line, or the outcome of one, in JSON.

The service writes them and training reads them. People write them too: a line is what they send to be scored, with what
became of it. A line that has ``task`` or ``messages`` is a trajectory, any other line is an outcome.
"""

from typing import Annotated, Any, Final, Self

from pydantic import Field, TypeAdapter, model_validator

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.wire.fields import Body, Id, Name, NonEmpty, Text

Share = Annotated[float, Field(ge=0, le=1)]
"""An outcome, or the label of a step: 1 is full success."""


class _End(Body):
    """How a trajectory ended."""

    query: Name | None = Field(
        None, description="Which attempts belong together. Absent: those whose task is the same text."
    )
    outcome: Share | None = Field(None, description="The terminal reward in [0, 1].")
    terminated: bool | None = Field(None, description="The task ended it. Absent: it did, unless truncated.")
    truncated: bool = Field(False, description="A limit cut it; its last step does not take the outcome as its label.")

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.terminated is not None and self.terminated == self.truncated:
            raise ValueError("exactly one of terminated and truncated must be true")
        return self


class TrajectoryLine(_End, wire.History):
    """One trajectory. Its outcome may be on a line of its own, joined by ``trajectory_id``."""

    trajectory_id: Id | None = Field(None, description="Joins this line with a longer recording and with its outcome.")
    observation: Text | None = Field(
        None, description="What the environment showed after the last action; goes with `task`, a chat has it as turns."
    )
    continuations: list[list[Share]] | None = Field(
        None, description="For each step, the outcomes of rollouts that were continued after it: Monte Carlo labels."
    )
    labels: list[Share | None] | None = Field(None, description="For each step, its given label; null: it has none.")
    metadata: dict[str, Any] | None = Field(None, description="Anything else; training does not read it.")


class OutcomeLine(_End):
    """What became of a trajectory, or the body of ``/outcomes``."""

    trajectory_id: Annotated[Id, Field(min_length=1)] = Field(description="As in the requests that were scored.")
    action: NonEmpty | wire.Message | None = Field(
        None, description="The last action, if no scored trajectory holds it: an agent that only ranks has not sent it."
    )


_LINE: Final = TypeAdapter(dict[str, Any])


def read_line(line: bytes) -> TrajectoryLine | OutcomeLine:
    """Returns the line of a rollout file.

    Raises:
        InvalidRequest: it is no JSON object, or a field is missing, unknown or wrong; the message names the field.
    """
    try:
        fields = _LINE.validate_json(line)
    except ValueError as error:
        raise InvalidRequest(f"not a JSON object: {error}") from None
    if fields.keys() & {"task", "messages"}:
        return wire.decode(TrajectoryLine, line)
    return wire.decode(OutcomeLine, line)


def write_line(line: TrajectoryLine | OutcomeLine) -> bytes:
    """Returns the JSON of a line with the newline that ends it; absent fields are left out."""
    return line.model_dump_json(exclude_defaults=True).encode() + b"\n"
