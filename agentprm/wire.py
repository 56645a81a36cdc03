"""The JSON bodies of the HTTP contract, shared by the service and its clients.

Fields are documented here once; the service's OpenAPI page is generated from them. Unknown fields of a request are
refused, so that a misspelt one is an error and not a silently different score; those of a reply are ignored, so that
a client outlives a service that learns to tell more.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from agentprm.errors import InvalidRequest


def _of_whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_of_whole_characters)]
"""JSON can spell half a character, which no tokenizer takes and no reply can echo."""
NonEmpty = Annotated[str, Field(min_length=1)]
"""Of whole characters too: pydantic looks where there is a length to check."""
Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]
Unsent = SkipJsonSchema[None]  # what a header is where it is left out; no header can say null


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Reply(Body):
    model_config = ConfigDict(extra="ignore")


class StepBody(Body):
    observation: Text = Field("", description="What the environment showed before the action.")
    action: NonEmpty = Field(description="What the agent did or said, thought included, verbatim.")


class TextPart(Body):
    type: Literal["text"]
    text: Text


class FunctionCall(Body):
    name: NonEmpty
    arguments: Text = Field(description="The arguments as the JSON text that the model wrote.")


class ToolCall(Body):
    id: Text | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(BaseModel):
    """One turn of an OpenAI chat. Assistant turns are actions; user and tool turns are observations.

    A field of the chat format that is not listed here is accepted only while it is empty (clients dump ``null``
    fields), because text that is not read would change the score without a word.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: Text | None = None
    name: Text | None = None

    @model_validator(mode="after")
    def _nothing_goes_unread(self) -> Self:
        unread = sorted(name[:64] for name, value in (self.model_extra or {}).items() if value)
        if unread:
            raise ValueError(f"message fields that are not scored: {', '.join(unread[:5])}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only an assistant message may hold tool_calls")
        return self


class _Item(Body):
    """What every item has in common: the history, in one of two forms."""

    id: Text | None = Field(None, description="Echoed in the result.")
    task: NonEmpty | None = Field(None, description="The instruction the agent was given.")
    steps: list[StepBody] | None = Field(None, description="The steps so far, in order.")
    messages: list[Message] | None = Field(
        None, min_length=1, description="The same history as an OpenAI chat, instead of `task` and `steps`."
    )

    @model_validator(mode="after")
    def _one_form_of_history(self) -> Self:
        if (self.task is None) == (self.messages is None):
            raise ValueError("give either task (with steps) or messages")
        if self.messages is not None and self.steps is not None:
            raise ValueError("steps go with task, not with messages")
        return self


class TrajectoryItem(_Item):
    """A trajectory with at least one step; in `messages` form the last message is the assistant's."""

    @model_validator(mode="after")
    def _has_a_step(self) -> Self:
        if self.task is not None and not self.steps:
            raise ValueError("steps must hold at least one step")
        return self


class Sample(Body):
    """Actions that the service is to sample from the policy that it was given."""

    n: int = Field(ge=1, description="How many; equal ones are scored once.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="0: the likeliest token each time.")
    max_tokens: int = Field(default=512, ge=1, le=1_000_000, description="Most tokens of one action.")
    stop: list[NonEmpty] = Field(default=[], max_length=4, description="Texts before which an action ends.")


class RankItem(_Item):
    """A state and the actions proposed in it; in `messages` form the last turns are the current observation."""

    observation: Text | None = Field(None, description="The current observation; goes with `task`.")
    candidates: list[NonEmpty | Message] | None = Field(
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
    model: NonEmpty | None = Field(None, description="Name, `name@version` or alias; the default model if absent.")
    deadline_ms: Milliseconds | None = Field(
        None, description="As the header `x-deadline-ms`, for who cannot set one; the sooner of both counts."
    )


class ScoreRequest(_Request):
    """Body of `/score_step` and `/score_trajectory`."""

    items: list[TrajectoryItem] = Field(min_length=1)


class RankRequest(_Request):
    """Body of `/rank_actions`."""

    items: list[RankItem] = Field(min_length=1)


def encode(request: type[ScoreRequest | RankRequest], fields: Mapping[str, Any]) -> bytes:
    """A request's body as JSON, null fields left out.

    Raises:
        InvalidRequest: the fields break the contract; ``details`` says where, as in the service's answer.
    """
    try:
        return request.model_validate(fields).model_dump_json(exclude_none=True).encode()
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        where = ".".join(map(str, errors[0]["loc"]))
        raise InvalidRequest(f"{where}: {errors[0]['msg']}", details={"errors": errors}) from error
    except ValueError as error:
        raise InvalidRequest("a text holds a lone surrogate, which is no character") from error


class ModelIdentity(Reply):
    name: str
    version: str
    digest: str = Field(description="Hash of the checkpoint's content: equal digests give equal scores.")


class UsageBody(Reply):
    tokens: int = Field(description="Tokens of the item: the sum of the other three.")
    computed: int = Field(description="Tokens that went through the model for this item.")
    prefix_cache: int = Field(description="Tokens whose keys and values were already on the device.")
    score_cache: int = Field(description="Tokens whose scores were already known.")


class ScoreBody(Reply):
    promise: float = Field(description="Q(s,a) in [0, 1]: the expected final success after this action.")
    progress: float | None = Field(description="promise minus the previous step's promise; null at the first step.")
    raw: float = Field(description="The head's output before squashing.")


class Result(Reply):
    id: str | None = Field(description="The item's id, null if it had none.")


class StepResult(ScoreBody, Result):
    usage: UsageBody


class TrajectoryResult(Result):
    steps: list[ScoreBody]
    usage: UsageBody


def _is_none(value: object) -> bool:
    return value is None


class RankedCandidate(ScoreBody):
    index: int = Field(description="Position of this candidate in the request, or among those sampled.")
    rank: int = Field(description="0 for the best; ties keep the request's order.")
    action: str | None = Field(None, exclude_if=_is_none, description="Its text; only where it was sampled.")
    complete: bool | None = Field(
        None,
        exclude_if=_is_none,
        description="Whether the policy ended it itself and was not cut at `max_tokens`; only where it was sampled.",
    )


class RankResult(Result):
    ranking: list[RankedCandidate] = Field(description="All candidates, best promise first.")
    usage: UsageBody


class ScoreStepReply(Reply):
    model: ModelIdentity
    results: list[StepResult]


class ScoreTrajectoryReply(Reply):
    model: ModelIdentity
    results: list[TrajectoryResult]


class RankActionsReply(Reply):
    model: ModelIdentity
    results: list[RankResult]


class Limits(Reply):
    items: int = Field(description="Most items in one request.")
    candidates: int = Field(description="Most candidates in one item.")
    tokens: int = Field(description="Most tokens in one item: the model's context length.")
    body_bytes: int = Field(description="Longest request body.")
    queue_tokens: int = Field(description="Most tokens still to be computed that may wait, of all requests together.")
    requests: int = Field(description="Most requests for scores at once.")


class Weights(Reply):
    quantised: str
    error: dict[str, float] = Field(description="`rms` and `max` of promises; of `raw` in its standard deviations.")
    measured_on: str


class ModelInfo(ModelIdentity):
    aliases: list[str]
    default: bool = Field(description="Whether requests without `model` get this one.")
    base_model: str
    dtype: str = Field(description="The backbone's; with +int8 or +int4 where its linear layers are quantised.")
    weights: Weights | None = Field(default=None, description="null: not quantised; else what that cost.")
    device: str
    limits: Limits
    training: dict[str, Any] = Field(description="How it was trained, from the manifest.")
    evaluation: dict[str, Any] = Field(description="What was measured, from the manifest.")


class ModelsReply(Reply):
    models: list[ModelInfo]


class ModelReference(Body):
    """Body of `/admin/load` and `/admin/unload`."""

    model: NonEmpty = Field(description="Alias, name or `name@version`.")


class AliasTarget(Body):
    """Body of `/admin/alias`."""

    alias: NonEmpty
    model: NonEmpty = Field(description="What the alias is to stand for: alias, name or `name@version`.")


class ErrorDetail(Reply):
    code: str
    message: str
    details: dict[str, Any]


class ErrorReply(Reply):
    error: ErrorDetail
