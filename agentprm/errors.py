"""The errors of requests, the same classes in the service and in the client.

``model_store.errors`` has those of checkpoints, which no client sees.

AgentPRMError
├── RequestError                what the service answers, as an envelope with a status code
│   ├── InvalidRequest          422  the body breaks the contract; ``details`` says where
│   ├── Unauthorized            401  no API key, or an unknown one
│   ├── Forbidden               403  the key lacks the scope that the route needs
│   ├── NotFound                404  no such route
│   │   ├── MethodNotAllowed    405  the route exists, the method does not
│   │   └── ModelNotFound       404  no such model is loaded
│   ├── TooSlow                 408  the body did not arrive in time
│   ├── TooLong                 413  a body, item or trajectory over a published limit
│   ├── UnsupportedMediaType    415  the body has an encoding that the service does not read
│   ├── Overloaded              429  try again after ``retry_after`` seconds
│   │   └── RateLimited         429  the key has used up its rate limit for now
│   ├── UpstreamFailed          502  a server that the service depends on gave no usable answer
│   ├── NotReady                503  starting, draining or broken; may carry ``retry_after``
│   ├── DeadlineExceeded        504  the caller's deadline passed before a score was ready
│   └── InternalError           500  a fault of the service; ``details["id"]`` finds it in the log
├── ClientClosed                the client was closed, or its connections belong to another process
├── ConnectionFailed            the client could not reach the service or got no whole reply
└── UnexpectedReply             the reply breaks the contract; usually another server sent it
"""

from typing import Any, ClassVar


class AgentPRMError(Exception):
    """Base of everything this project raises on purpose. ``str(error)`` is one sentence for a person.

    Errors can be pickled and copied, with all their attributes: pools of processes send them home.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is restored by a call with its positional arguments, which lacks the named ones.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[AgentPRMError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> AgentPRMError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class RequestError(AgentPRMError):
    """A request that got an error instead of scores.

    ``code`` (a word) and ``status`` (of HTTP) are fixed for each class. ``message`` is one sentence, ``details`` a JSON
    object, and ``retry_after`` the seconds to wait before trying again, None if the answer names none.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, details: dict[str, Any] | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after

    def envelope(self) -> dict[str, Any]:
        """The JSON body of this error: ``{"error": {"code", "message", "details"}}``."""
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


class InvalidRequest(RequestError):
    code = "invalid"
    status = 422


class Unauthorized(RequestError):
    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    code = "forbidden"
    status = 403


class NotFound(RequestError):
    code = "not_found"
    status = 404


class MethodNotAllowed(NotFound):
    code = "method_not_allowed"
    status = 405


class ModelNotFound(NotFound):
    code = "model_not_found"


class TooSlow(RequestError):
    code = "too_slow"
    status = 408


class TooLong(RequestError):
    code = "too_long"
    status = 413


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    status = 415


class Overloaded(RequestError):
    code = "overloaded"
    status = 429


class RateLimited(Overloaded):
    code = "rate_limited"


class UpstreamFailed(RequestError):
    code = "upstream_failed"
    status = 502


class NotReady(RequestError):
    code = "not_ready"
    status = 503


class DeadlineExceeded(RequestError):
    code = "deadline_exceeded"
    status = 504


class InternalError(RequestError):
    code = "internal"
    status = 500


class ClientClosed(AgentPRMError):
    """A call of a client that was closed, or whose connections belong to another process."""


class ConnectionFailed(AgentPRMError):
    """No whole reply arrived: the connection was refused, reset, cut off or timed out."""


class UnexpectedReply(AgentPRMError):
    """A reply that breaks the contract, usually from a proxy or another server.

    ``status`` is its HTTP status, ``retry_after`` the seconds of its ``Retry-After`` header, None without one.
    """

    def __init__(self, message: str, *, status: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


BY_CODE: dict[str, type[RequestError]] = {
    error.code: error
    for error in (
        InvalidRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        ModelNotFound,
        TooSlow,
        TooLong,
        UnsupportedMediaType,
        Overloaded,
        RateLimited,
        UpstreamFailed,
        NotReady,
        DeadlineExceeded,
        InternalError,
    )
}
