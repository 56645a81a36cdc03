"""Bodies of the scoring routes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from agentprm.aggregate import Aggregate
from agentprm.errors import InvalidRequest
from agentprm.types import Overflow
from agentprm.wire import branches
from agentprm.wire.chats import Message, ToolDefinition
from agentprm.wire.fields import Body, FailFastList, Id, Milliseconds, Name, NonEmpty, Text
from agentprm.wire.per_item import OnError, OrRefused, RefusedItem, on_error_field
from agentprm.wire.size import JSONSize


class StepBody(Body):
    observation: Text = Field("", description="What the environment showed before the action.")
    action: NonEmpty = Field(description="What the agent did or said, thought included, verbatim.")


class History(Body):
    """A history in one of two forms: task and steps, or an OpenAI chat."""

    task: NonEmpty | None = Field(None, description="The instruction the agent was given.")
    steps: FailFastList[StepBody] | None = Field(None, description="The steps so far, in order.")
    messages: FailFastList[Message] | None = Field(
        None, min_length=1, description="The same history as an OpenAI chat, instead of `task` and `steps`."
    )
    tools: FailFastList[ToolDefinition] | None = Field(
        None, description="Tools that the agent may call, as OpenAI defines them; goes with `messages`."
    )
    reasoning: Literal["include", "drop"] | None = Field(
        None,
        description="What becomes of the assistant's reasoning in `messages`: `include` refuses a chat whose reasoning "
        "the checkpoint's template leaves no place for, `drop` leaves all of it out. Absent: as the template does.",
    )

    @model_validator(mode="after")
    def _one_form_of_history(self) -> Self:
        if (self.task is None) == (self.messages is None):
            raise ValueError("give either task (with steps) or messages")
        if self.messages is not None and self.steps is not None:
            raise ValueError("steps go with task, not with messages")
        if self.messages is None and (self.tools or self.reasoning):
            raise ValueError("tools and reasoning go with messages, not with task")
        return self


class _Item(History):
    id: Id | None = Field(None, description="Echoed in the result.")
    trajectory_id: Annotated[Id, Field(min_length=1)] | None = Field(
        None,
        description="Which trajectory of the agent this is, where the service records for training: joins its "
        "recordings with each other and with its outcome. Changes no score.",
    )
    overflow: Overflow = Field(
        "error",
        exclude_if=lambda overflow: overflow == "error",
        description="What becomes of a history with more tokens than the model reads: `error` refuses the item, "
        "`drop_oldest` drops whole steps, the oldest first, and `shorten_observations` cuts the middle of the longest "
        "observations. The task stays.",
    )


class TrajectoryItem(_Item):
    """A trajectory with at least one step.

    In `messages` form the last message is the assistant's; `/score_trajectory` leaves later ones out.
    """

    @model_validator(mode="after")
    def _has_a_step(self) -> Self:
        if self.task is not None and not self.steps:
            raise ValueError("steps must hold at least one step")
        return self


class Sample(Body):
    """Asks the service to sample the candidate actions from its policy."""

    n: int = Field(ge=1, description="How many; equal ones are scored once.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="0: the likeliest token each time.")
    max_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Most tokens of one action.")
    stop: FailFastList[Name] = Field(default=[], max_length=4, description="Texts before which an action ends.")


class RankItem(_Item):
    """A state and the actions proposed in it; in `messages` form the last turns are the current observation."""

    observation: Text | None = Field(None, description="The current observation; goes with `task`.")
    candidates: FailFastList[Annotated[NonEmpty, branches.TEXT] | Annotated[Message, branches.MESSAGE]] | None = Field(
        None, min_length=1, description="Proposed actions: text, or assistant messages (tool calls included)."
    )
    sample: Sample | None = Field(None, description="Instead of `candidates`: sample them from the policy.")

    @model_validator(mode="after")
    def _candidates_or_sample(self) -> Self:
        if (self.candidates is None) == (self.sample is None):
            raise ValueError("give either candidates or sample")
        return self

    @model_validator(mode="after")
    def _observation_goes_with_task(self) -> Self:
        if self.messages is not None and self.observation is not None:
            raise ValueError("observation goes with task; with messages it is their last turns")
        return self


class _Request(Body):
    # Declared before the items: their validation reads it.
    on_error: OnError = on_error_field()
    model: Name | None = Field(None, description="Name, `name@version` or alias; the default model if absent.")
    deadline_ms: Milliseconds | None = Field(
        None,
        description="Same as the header `x-deadline-ms`, for clients that set no headers; the earlier one counts.",
    )


class ScoreRequest(_Request):
    """Body of `/score_step`."""

    items: FailFastList[Annotated[TrajectoryItem | RefusedItem, OrRefused()]] = Field(min_length=1)


class ScoreTrajectoryRequest(ScoreRequest):
    """Body of `/score_trajectory`."""

    aggregate: Aggregate | None = Field(
        None, description="Which one number of all promises each result has besides its steps; none if absent."
    )


class RankRequest(_Request):
    """Body of `/rank_actions`."""

    items: FailFastList[Annotated[RankItem | RefusedItem, OrRefused()]] = Field(min_length=1)


Request = TypeVar("Request", ScoreRequest, ScoreTrajectoryRequest, RankRequest)


def validate(request: type[Request], fields: Mapping[str, Any]) -> Request:
    """Makes a request of its fields.

    Raises:
        InvalidRequest: the fields break the contract; ``details`` says where, in the form of the service's own errors.
    """
    try:
        return request.model_validate(fields)
    except ValidationError as error:
        errors = branches.meant(error.errors(include_url=False, include_context=False, include_input=False))
        where = ".".join(map(str, errors[0]["loc"]))
        raise InvalidRequest(f"{where}: {errors[0]['msg']}", details={"errors": errors}) from error


def encode(request: ScoreRequest | RankRequest) -> bytes:
    """A request's body as JSON, null fields left out.

    Raises:
        InvalidRequest: a text holds a lone surrogate.
        TooLong: the body would hold more JSON values or objects than the service takes.
    """
    try:
        body = request.model_dump_json(exclude_none=True).encode()
    except ValueError as error:
        raise InvalidRequest("a text holds a lone surrogate, which is no character") from error
    JSONSize().add(body)
    return body
