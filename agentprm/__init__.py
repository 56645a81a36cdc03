"""Score the steps of LLM agents with a process reward model.

>>> with Client("http://localhost:8000") as prm:
...     ranked = prm.rank(State("craft a torch", observation="You have 1 coal"), ["get 1 stick", "look around"])
...     best = ranked.ranking[0].index
"""

from agentprm.async_client import AsyncClient
from agentprm.client import Client
from agentprm.errors import (
    AgentPRMError,
    ClientClosed,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotReady,
    Overloaded,
    RateLimited,
    RequestError,
    TooLong,
    TooSlow,
    Unauthorized,
    UnexpectedReply,
    UnsupportedMediaType,
    UpstreamFailed,
)
from agentprm.outcomes import Outcomes
from agentprm.types import State, Step, StepScore, Trajectory, Usage
from agentprm.wire import Message, RankItem, Sample, TrajectoryItem

__all__ = [
    "AgentPRMError",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Forbidden",
    "InternalError",
    "InvalidRequest",
    "Message",
    "MethodNotAllowed",
    "ModelNotFound",
    "NotFound",
    "NotReady",
    "Outcomes",
    "Overloaded",
    "RankItem",
    "RateLimited",
    "RequestError",
    "Sample",
    "State",
    "Step",
    "StepScore",
    "TooLong",
    "TooSlow",
    "Trajectory",
    "TrajectoryItem",
    "Unauthorized",
    "UnexpectedReply",
    "UnsupportedMediaType",
    "UpstreamFailed",
    "Usage",
]
