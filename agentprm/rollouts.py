"""Lines of rollout files: one trajectory a line, or the outcome of one, in JSON.

The service writes them and training reads them. People write them too: a line is what they send to be scored, with what
became of it. A line that has ``task`` or ``messages`` is a trajectory, any other line is an outcome.
"""

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from agentprm import wire
from agentprm.errors import InvalidRequest
from agentprm.wire.branches import MESSAGE, TEXT, meant
from agentprm.wire.fields import Body, ErrorCounts, Id, Name, NonEmpty, Text, TooManyErrors

Share = Annotated[float, Field(ge=0, le=1, strict=True)]
"""An outcome, or the label of a step: 1 is full success."""


class _End(Body):
    """How a trajectory ended."""

    query: Name | None = Field(
        default=None, description="Which attempts belong together. Absent: those whose task is the same text."
    )
    outcome: Share | None = Field(default=None, description="The terminal reward in [0, 1].")
    terminated: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="The task ended it. Absent: it did, unless truncated."
    )
    truncated: bool = Field(
        default=False, strict=True, description="A limit cut it; its last step does not take the outcome as its label."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.terminated is not None and self.terminated == self.truncated:
            raise ValueError("exactly one of terminated and truncated must be true")
        return self


class TrajectoryLine(_End, wire.History):
    """One trajectory. Its outcome may be on a line of its own, joined by ``trajectory_id``."""

    trajectory_id: Id | None = Field(
        default=None, description="Joins this line with a longer recording and with its outcome."
    )
    observation: Text | None = Field(
        default=None,
        description="What the environment showed after the last action; goes with `task`, a chat has it as turns.",
    )
    continuations: list[list[Share]] | None = Field(
        default=None,
        description="For each step, the outcomes of rollouts that were continued after it: Monte Carlo labels.",
    )
    labels: list[Share | None] | None = Field(
        default=None, description="For each step, its given label; null: it has none."
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Anything else; training does not read it.")

    @property
    def step_count(self) -> int:
        """The number of actions: steps, or assistant turns."""
        if self.messages is None:
            return len(self.steps or ())
        return sum(message.role == "assistant" for message in self.messages)

    @model_validator(mode="after")
    def _one_for_each_step(self) -> Self:
        for name, values in (("continuations", self.continuations), ("labels", self.labels)):
            if values and len(values) != self.step_count:
                raise ValueError(f"{name} must have one entry for each step: {self.step_count}, not {len(values)}")
        return self

    @model_validator(mode="after")
    def _observation_goes_with_task(self) -> Self:
        if self.messages is not None and self.observation is not None:
            raise ValueError("observation goes with task; with messages it is their last turns")
        return self


class OutcomeLine(_End):
    """What became of a trajectory, or the body of ``/outcomes``."""

    trajectory_id: Annotated[Id, Field(min_length=1)] = Field(description="As in the requests that were scored.")
    action: Annotated[NonEmpty, TEXT] | Annotated[wire.Message, MESSAGE] | None = Field(
        default=None,
        description="The last action, if no scored trajectory holds it: an agent that only ranks has not sent it.",
    )

    @model_validator(mode="after")
    def _says_how_it_ended(self) -> Self:
        if self.outcome is None and not self.truncated:
            raise ValueError("outcome is missing; only a truncated trajectory may lack it")
        return self


def read_line(line: bytes) -> TrajectoryLine | OutcomeLine:
    """Returns the line of a rollout file.

    Raises:
        InvalidRequest: it is no JSON object, or a field is missing, unknown or wrong; one sentence names the field.
    """
    return read_fields(parse(line))


def parse(line: bytes) -> Any:
    """Returns the value of a JSON text in UTF-8. Raises InvalidRequest if it is none."""
    try:
        return from_json(line.removeprefix(codecs.BOM_UTF8), cache_strings="keys")
    except ValueError as error:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidRequest("it is UTF-16; save the file as UTF-8") from None
        if not line.strip():
            raise InvalidRequest("it is empty") from None
        raise InvalidRequest(f"it is not JSON: {str(error).replace(' at line 1 column ', ' at character ')}") from None


def read_fields(fields: Any) -> TrajectoryLine | OutcomeLine:
    """Returns the line that has these fields, as JSON has them.

    Raises:
        InvalidRequest: a field is missing, unknown or wrong; one sentence names it.
    """
    if not isinstance(fields, dict):
        raise InvalidRequest(f"a line must be a JSON object, not {_KINDS.get(type(fields), 'null')}")
    kind = TrajectoryLine if fields.keys() & {"task", "messages"} else OutcomeLine
    if kind is OutcomeLine and "trajectory_id" not in fields:
        raise InvalidRequest("it is no trajectory, which has task or messages, and no outcome, which has trajectory_id")
    try:
        return kind.model_validate(fields, context=ErrorCounts())
    except ValidationError as error:
        raise InvalidRequest(describe(error)) from None
    except TooManyErrors as error:
        raise InvalidRequest(str(error)) from None


def write_line(line: TrajectoryLine | OutcomeLine) -> bytes:
    """Returns the JSON of a line with the newline that ends it; absent fields are left out."""
    return line.model_dump_json(exclude_defaults=True).encode() + b"\n"


_KINDS: Final = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
"""What JSON calls the types of Python."""

_WORDS: Final = {
    "Input should have": "must have",
    "String should have": "must have",
    "Input should be": "must be",
    "a valid string": "a text",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "a valid list": "a list",
    "a valid dictionary": "an object",
}


def describe(error: ValidationError) -> str:
    """Returns a sentence that says what is wrong first: the field by its place, and what it must be."""
    errors = meant(error.errors(include_url=False))
    sentence = _sentence(errors[0])
    return sentence if len(errors) == 1 else f"{sentence} (and {len(errors) - 1} more)"


def _sentence(error: Mapping[str, Any]) -> str:
    *outer, last = error["loc"] or ("",)
    place = ".".join(map(str, error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            return f"unknown field {last}" + (f" in {'.'.join(map(str, outer))}" if outer else "")
        case "value_error":
            return f"{place}: {error['ctx']['error']}".removeprefix(": ")
        case kind:
            return f"{place} {_predicate(kind, error)}"


def _predicate(kind: str, error: Mapping[str, Any]) -> str:
    match kind:
        case "missing":
            return "is missing"
        case "string_too_short" | "too_short":
            return "must not be empty"
        case "float_parsing":
            return "must be a number, not a text"
        case "greater_than_equal" | "less_than_equal":
            return f"must be from 0 to 1, not {error['input']}"
    message = str(error["msg"])
    for theirs, plain in _WORDS.items():
        message = message.replace(theirs, plain)
    given = f", not {_KINDS.get(type(error['input']), 'null')}" if kind.endswith("_type") else ""
    return f"{message}{given}"
