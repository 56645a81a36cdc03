"""The JSON bodies of the HTTP contract, shared by the service and its clients.

The service's OpenAPI page is generated from these classes, so each field is documented once. An unknown field of a
request is refused: a misspelt one is an error and not a silently different score. An unknown field of a reply is
ignored: an older client keeps working when the service adds fields.
"""

from agentprm.wire.admin import AliasTarget, ModelReference
from agentprm.wire.chats import ContentPart, FunctionCall, Message, Role, ToolCall, ToolDefinition
from agentprm.wire.decode import decode, invalid_request
from agentprm.wire.fields import Body, Milliseconds, NonEmpty, Reply, Text, Unsent
from agentprm.wire.per_item import OnError, RefusedItem
from agentprm.wire.replies import (
    ErrorDetail,
    ErrorReply,
    ItemError,
    Limits,
    ModelIdentity,
    ModelInfo,
    ModelsReply,
    RankActionsOutcomes,
    RankActionsReply,
    RankedCandidate,
    RankResult,
    Result,
    ScoreBody,
    ScoresReply,
    ScoreStepOutcomes,
    ScoreStepReply,
    ScoreTrajectoryOutcomes,
    ScoreTrajectoryReply,
    StepResult,
    TrajectoryResult,
    UsageBody,
    Weights,
)
from agentprm.wire.requests import (
    History,
    RankItem,
    RankRequest,
    Sample,
    ScoreRequest,
    ScoreTrajectoryRequest,
    StepBody,
    TrajectoryItem,
    encode,
    validate,
)
from agentprm.wire.size import JSONSize

__all__ = [
    "AliasTarget",
    "Body",
    "ContentPart",
    "ErrorDetail",
    "ErrorReply",
    "FunctionCall",
    "History",
    "ItemError",
    "JSONSize",
    "Limits",
    "Message",
    "Milliseconds",
    "ModelIdentity",
    "ModelInfo",
    "ModelReference",
    "ModelsReply",
    "NonEmpty",
    "OnError",
    "RankActionsOutcomes",
    "RankActionsReply",
    "RankItem",
    "RankRequest",
    "RankResult",
    "RankedCandidate",
    "RefusedItem",
    "Reply",
    "Result",
    "Role",
    "Sample",
    "ScoreBody",
    "ScoreRequest",
    "ScoreStepOutcomes",
    "ScoreStepReply",
    "ScoreTrajectoryOutcomes",
    "ScoreTrajectoryReply",
    "ScoreTrajectoryRequest",
    "ScoresReply",
    "StepBody",
    "StepResult",
    "Text",
    "ToolCall",
    "ToolDefinition",
    "TrajectoryItem",
    "TrajectoryResult",
    "Unsent",
    "UsageBody",
    "Weights",
    "decode",
    "encode",
    "invalid_request",
    "validate",
]
