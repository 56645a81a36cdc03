"""One request from its first attempt to its reply: headers, deadline and retries.

Nothing here sends or sleeps, so the sync and the async client share all of it.
"""

import math
import random
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic

import httpx

from agentprm import wire
from agentprm.calls import Call, R
from agentprm.errors import (
    BY_CODE,
    ConnectionFailed,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    RequestError,
    UnexpectedReply,
)

CONNECT_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 30.0
"""With a longer ``Retry-After`` the error is raised: the call would look stuck, and the caller can wait better."""
FAILURES: Final = (httpx.RequestError, RequestError, UnexpectedReply)
"""Errors of an attempt that ``Exchange.pause_after`` takes."""
# Scoring changes nothing, so a request whose connection was lost is sent again. After a read timeout it is not: the
# service may still be computing the first one.
_LOST_CONNECTION: Final = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
_TRANSIENT_STATUSES: Final = (Overloaded.status, NotReady.status)
_GATEWAY_STATUSES: Final = (502, 503, 504)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of a call: ``timeout`` seconds for each phase of an attempt, ``max_retries`` attempts after the first."""

    timeout: float
    max_retries: int


PROBE: Final = RetryPolicy(timeout=5.0, max_retries=0)


class Exchange(Generic[R]):
    """One call from its first attempt to its reply.

    ``deadline_ms`` counts from the construction and covers all attempts.
    """

    def __init__(
        self, call: Call[R], policy: RetryPolicy, deadline_ms: float | None = None, request_id: str | None = None
    ) -> None:
        self._call = call
        self._policy = policy
        self._deadline = math.inf if deadline_ms is None else monotonic() + deadline_ms / 1000
        self._headers = {"x-request-id": request_id} if request_id is not None else {}
        self._retries = 0

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Returns the request of the next attempt, with the time left as its deadline.

        Raises:
            DeadlineExceeded: no time is left.
        """
        remaining = self._remaining()
        if remaining <= 0:
            raise DeadlineExceeded("the deadline passed before the request was sent")
        headers = dict(self._headers)
        if self._call.body is not None:
            headers["content-type"] = "application/json"
        if self._call.trajectory_id is not None:
            headers["x-trajectory-id"] = self._call.trajectory_id
        if remaining < math.inf:
            headers["x-deadline-ms"] = str(max(1, round(remaining * 1000)))
        seconds = min(self._policy.timeout, remaining)
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        return http.build_request(
            self._call.method, self._call.path, content=self._call.body, headers=headers, timeout=timeout
        )

    def read(self, response: httpx.Response) -> R:
        """The reply in ``response``.

        Raises:
            RequestError: the service refused; the class follows its error code.
            UnexpectedReply: the reply breaks the contract, or has more or fewer results than the request had items.
        """
        if not response.is_success:
            raise _refusal(response)
        try:
            reply = self._call.reply.model_validate_json(response.content)
        except ValueError as error:
            raise _unexpected(response) from error
        if len(getattr(reply, "results", ())) != self._call.items:
            raise _unexpected(response)
        return reply

    def pause_after(self, error: Exception) -> float:
        """Seconds until the next attempt.

        Raises:
            AgentPRMError: there is no next attempt; the error that the caller gets instead of ``error``.
        """
        pause = retry_pause(
            error,
            retries=self._retries,
            max_retries=self._policy.max_retries,
            remaining=self._remaining(),
            jitter=random.random(),
        )
        if pause is not None:
            self._retries += 1
            return pause
        if not isinstance(error, httpx.RequestError):
            raise error
        if isinstance(error, httpx.TimeoutException) and self._remaining() <= 0:
            raise DeadlineExceeded("no reply came before the deadline") from error
        raise ConnectionFailed(_connection_error(error)) from error

    def _remaining(self) -> float:
        return self._deadline - monotonic()


def retry_pause(error: Exception, *, retries: int, max_retries: int, remaining: float, jitter: float) -> float | None:
    """Seconds to wait before trying again; None if ``error`` is final.

    ``retries`` counts those so far, ``remaining`` is the seconds before the deadline, ``jitter`` is in [0, 1).
    """
    if retries >= max_retries or not _is_transient(error):
        return None
    retry_after = getattr(error, "retry_after", None)
    pause = float(retry_after) if retry_after is not None else (0.5 + jitter / 2) * 0.25 * 2 ** min(retries, 5)
    return pause if pause <= MAX_PAUSE_SECONDS and pause < remaining else None


def means_not_ready(error: Exception) -> bool:
    """Returns whether a failed call of ``/ready`` means "not ready".

    It does if nobody listens, if the service says so, or if a gateway has no service behind it.
    """
    if isinstance(error, UnexpectedReply):
        return error.status in _GATEWAY_STATUSES
    return isinstance(error, ConnectionFailed | NotReady)


def checked_url(base_url: str) -> httpx.URL:
    url = httpx.URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url must start with http:// or https:// and name a host: {base_url!r}")
    return url


def authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    # httpx quotes a key that is no header value in its error: one read from a file with its line end, for example.
    if not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
        raise ValueError("api_key must be printable ASCII without white space around it")
    return {"authorization": f"Bearer {api_key}"}


def _is_transient(error: Exception) -> bool:
    if isinstance(error, RequestError | UnexpectedReply):
        return error.status in _TRANSIENT_STATUSES
    return isinstance(error, _LOST_CONNECTION)


def _refusal(response: httpx.Response) -> RequestError | UnexpectedReply:
    try:
        error = wire.ErrorReply.model_validate_json(response.content).error
    except ValueError:
        return _unexpected(response)
    if error.code not in BY_CODE:
        return _unexpected(response)
    return BY_CODE[error.code](error.message, details=error.details, retry_after=_retry_after(response))


def _unexpected(response: httpx.Response) -> UnexpectedReply:
    beginning = response.content[:200].decode(errors="replace")
    return UnexpectedReply(
        f"{_place(response.request)} is not an AgentPRM reply: HTTP {response.status_code}, {beginning!r}",
        status=response.status_code,
        retry_after=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of the ``Retry-After`` header; None without it, or with a date, which the service never sends."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _connection_error(error: httpx.RequestError) -> str:
    return f"{_place(error.request)}: {type(error).__name__} {error}".rstrip()


def _place(request: httpx.Request) -> str:
    """Method and address without user and password."""
    return f"{request.method} {request.url.copy_with(userinfo=b'')}"
