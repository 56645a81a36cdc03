"""Score the steps of LLM agents with a process reward model.

>>> with Client("http://localhost:8000") as prm:
...     ranked = prm.rank(State("craft a torch", observation="You have 1 coal"), ["get 1 stick", "look around"])
...     best = ranked.ranking[0].index
"""

from agentprm.client import AsyncClient, Client
from agentprm.errors import (
    AgentPRMError,
    ConnectionFailed,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotReady,
    Overloaded,
    RequestError,
    TooLong,
    Unauthorized,
    UnexpectedReply,
    UpstreamFailed,
)
from agentprm.types import State, Step, StepScore, Trajectory, Usage
from agentprm.wire import Message, RankItem, Sample, TrajectoryItem
from model_store.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, ManifestInvalid

__all__ = [
    "AgentPRMError",
    "AsyncClient",
    "CheckpointCorrupt",
    "CheckpointError",
    "CheckpointNotFound",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "InternalError",
    "InvalidRequest",
    "ManifestInvalid",
    "Message",
    "MethodNotAllowed",
    "ModelNotFound",
    "NotFound",
    "NotReady",
    "Overloaded",
    "RankItem",
    "RequestError",
    "Sample",
    "State",
    "Step",
    "StepScore",
    "TooLong",
    "Trajectory",
    "TrajectoryItem",
    "Unauthorized",
    "UnexpectedReply",
    "UpstreamFailed",
    "Usage",
]
