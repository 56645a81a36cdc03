"""Replies, models, errors."""

from typing import Any

from pydantic import Field

from agentprm.wire.fields import Reply


def _is_none(value: object) -> bool:
    return value is None


def _is_zero(value: int) -> bool:
    return value == 0


class ModelIdentity(Reply):
    name: str
    version: str
    digest: str = Field(description="Hash of the checkpoint's content: equal digests give equal scores.")


class UsageBody(Reply):
    tokens: int = Field(description="Tokens of the item: the sum of `computed`, `prefix_cache` and `score_cache`.")
    computed: int = Field(description="Tokens that went through the model for this item.")
    prefix_cache: int = Field(description="Tokens whose keys and values were already on the device.")
    score_cache: int = Field(description="Tokens whose scores were already known.")
    unknown: int = Field(
        0, description="Tokens that stand for text outside the tokenizer's vocabulary; always 0 for a judge."
    )
    dropped_steps: int = Field(
        0,
        exclude_if=_is_zero,
        description="Steps that the last step's history lacks because of `overflow`; only if there are any.",
    )
    cut_tokens: int = Field(
        0,
        exclude_if=_is_zero,
        description="Tokens that were cut from the last step's history because of `overflow`, counted text by text; "
        "only if there are any. They are not among `tokens`.",
    )


class ScoreBody(Reply):
    promise: float = Field(description="Q(s,a) in [0, 1]: the expected final success after this action.")
    progress: float | None = Field(description="promise minus the previous step's promise; null at the first step.")
    raw: float = Field(description="The head's output before squashing.")


class Result(Reply):
    id: str | None = Field(description="The item's id, null if it had none.")


class ErrorDetail(Reply):
    code: str
    message: str
    details: dict[str, Any]


class ItemError(Result):
    """Result of an item that got no score; only in replies to requests whose `on_error` is `item`."""

    error: ErrorDetail


class StepResult(ScoreBody, Result):
    usage: UsageBody


class TrajectoryResult(Result):
    steps: list[ScoreBody]
    aggregate: float | None = Field(
        None,
        exclude_if=_is_none,
        description="`aggregate` of the steps' promises, in [0, 1]; only if the request has one.",
    )
    usage: UsageBody


class RankedCandidate(ScoreBody):
    index: int = Field(description="Position of this candidate in the request, or among those sampled.")
    rank: int = Field(description="0 for the best; ties keep the request's order.")
    action: str | None = Field(None, exclude_if=_is_none, description="Text of the action; only if it was sampled.")
    complete: bool | None = Field(
        None,
        exclude_if=_is_none,
        description="Whether the policy ended the action itself, before `max_tokens`; only if it was sampled.",
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


class ScoreStepOutcomes(Reply):
    """Results in the order of the items; errors only if the request's `on_error` is `item`."""

    model: ModelIdentity
    results: list[StepResult | ItemError]


class ScoreTrajectoryOutcomes(Reply):
    """Results in the order of the items; errors only if the request's `on_error` is `item`."""

    model: ModelIdentity
    results: list[TrajectoryResult | ItemError]


class RankActionsOutcomes(Reply):
    """Results in the order of the items; errors only if the request's `on_error` is `item`."""

    model: ModelIdentity
    results: list[RankResult | ItemError]


ScoresReply = (
    ScoreStepReply
    | ScoreTrajectoryReply
    | RankActionsReply
    | ScoreStepOutcomes
    | ScoreTrajectoryOutcomes
    | RankActionsOutcomes
)


class Limits(Reply):
    items: int = Field(description="Most items in one request.")
    candidates: int = Field(description="Most candidates in one item.")
    tokens: int = Field(description="Most tokens in one item: the model's context length.")
    characters: int = Field(
        description="Most characters in one item: its task, steps, observation or messages, tool calls included, and "
        "its longest candidate. Far more than most texts of `tokens` have."
    )
    body_bytes: int = Field(description="Most bytes of a request body.")
    queue_tokens: int = Field(
        description="Most tokens that may wait in the queue to be computed, of all requests together. While callers "
        "compete for it each has an equal share; bulk keeps half of it beside interactive requests."
    )
    requests: int = Field(
        description="Most scoring requests at the same time, of all callers together; one caller gets eight ninths."
    )


class Weights(Reply):
    quantised: str
    error: dict[str, float] = Field(
        description="Differences from full weights: of promises, and of `raw` in its standard deviations."
    )
    measured_on: str


class ModelInfo(ModelIdentity):
    aliases: list[str]
    default: bool = Field(description="Whether requests without `model` get this one.")
    base_model: str
    dtype: str = Field(
        description="Dtype of the backbone; followed by +int8 or +int4 if its linear layers are quantised."
    )
    weights: Weights | None = Field(
        default=None, description="Cost of quantised weights in score; null for full weights."
    )
    device: str
    limits: Limits
    trained_on: str | None = Field(
        default=None,
        description="Text and tasks that it was trained on, from `training.environment` of the manifest: scores of "
        "anything else mean little. null if the manifest does not say.",
    )
    training: dict[str, Any] = Field(description="How it was trained, from the manifest.")
    evaluation: dict[str, Any] = Field(description="What was measured, from the manifest.")


class ModelsReply(Reply):
    models: list[ModelInfo]


class OutcomeReply(Reply):
    trajectory_id: str = Field(description="Whose outcome was taken.")


class ErrorReply(Reply):
    error: ErrorDetail
