"""One request from its first attempt to its reply: headers, deadline and retries.

Nothing here sends or sleeps, so the sync and the async client share all of it.
"""

import math
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from time import monotonic
from typing import Final, Generic

import httpx

from agentprm import wire
from agentprm.address import place
from agentprm.calls import Call, R
from agentprm.errors import (
    BY_CODE,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    Overloaded,
    RequestError,
    UnexpectedReply,
)
from agentprm.matching import mismatch, with_own_ids

CONNECT_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 30.0
"""With a longer ``Retry-After`` the error is raised: the call would look stuck, and the caller can wait better."""
FAILURES: Final = (httpx.RequestError, RequestError, UnexpectedReply)
"""Errors of an attempt that ``Exchange.pause_after`` takes."""
# Scoring changes nothing, so a request whose connection was lost is sent again. After a read timeout it is not: the
# service may still be computing the first one.
_LOST_CONNECTION: Final = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
_TRANSIENT_STATUSES: Final = (Overloaded.status, NotReady.status)
_GATEWAY_STATUSES: Final = (502, 503, 504)
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
"""Request ids that the service keeps; instead of another one it would make its own."""


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """Limits of a call: ``timeout`` seconds for each phase of an attempt, ``max_retries`` attempts after the first.

    ``proxy`` is the address of the proxy on the way, without its password; empty if there is none.
    """

    timeout: float
    max_retries: int
    proxy: str = ""

    def __post_init__(self) -> None:
        if not (_is_number(self.timeout) and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout must be a number of seconds above 0, not {self.timeout!r}")
        if not (_is_number(self.max_retries) and self.max_retries >= 0):
            raise ValueError(f"max_retries must be 0 or more, not {self.max_retries!r}")

    def of_probe(self) -> "CallPolicy":
        return CallPolicy(PROBE_SECONDS, 0, self.proxy)


class Exchange(Generic[R]):
    """One call from its first attempt to its reply.

    ``deadline_ms`` counts from the construction and covers all attempts.
    """

    def __init__(
        self, call: Call[R], policy: CallPolicy, deadline_ms: float | None = None, request_id: str | None = None
    ) -> None:
        """Raises InvalidRequest for a deadline that is no number, and for an id that the service would not keep."""
        self._call = call
        self._policy = policy
        self._deadline = math.inf if deadline_ms is None else monotonic() + _milliseconds(deadline_ms) / 1000
        self._headers = {"x-request-id": _checked_id(request_id)} if request_id is not None else {}
        self._retries = 0

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; infinite without one."""
        return self._deadline - monotonic()

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Returns the request of the next attempt, with the time left as its deadline.

        Raises:
            DeadlineExceeded: no time is left.
        """
        remaining = self.remaining
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
        # A caller's own transport may wait for a connection: that is not the reply's time.
        pool = remaining if remaining < math.inf else None
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS), pool=pool)
        url = _absolute(http.base_url, self._call.path)
        return http.build_request(self._call.method, url, content=self._call.body, headers=headers, timeout=timeout)

    def read(self, response: httpx.Response) -> R:
        """The reply in ``response``.

        Raises:
            RequestError: the service refused; the class follows its error code.
            UnexpectedReply: the reply breaks the contract, or is not the one to this request.
        """
        if not response.is_success:
            raise self._refusal(response)
        try:
            reply = self._call.reply.model_validate_json(response.content)
        except ValueError as error:
            raise self._unexpected(response) from error
        return self._call.finish(self._matched(reply, response))

    def pause_after(self, error: Exception) -> float:
        """Seconds until the next attempt.

        Raises:
            AgentPRMError: there is no next attempt; the error that the caller gets instead of ``error``.
        """
        pause = retry_pause(
            error,
            retries=self._retries,
            max_retries=self._policy.max_retries,
            remaining=self.remaining,
            jitter=random.random(),
        )
        if pause is not None:
            self._retries += 1
            return pause
        if not isinstance(error, httpx.RequestError):
            raise error
        if isinstance(error, httpx.TimeoutException) and self.remaining <= 0:
            raise DeadlineExceeded("no reply came before the deadline") from error
        reason = f"{type(error).__name__} {error}".rstrip()
        raise ConnectionFailed(f"{self._way(error.request)}: {reason}") from error

    def _matched(self, reply: wire.Reply, response: httpx.Response) -> wire.Reply:
        results = getattr(reply, "results", ())
        if why := mismatch(results, self._call.sent):
            raise self._unexpected(response, f" to this request: {why}")
        return reply.model_copy(update={"results": with_own_ids(results, self._call.sent)}) if results else reply

    def _refusal(self, response: httpx.Response) -> RequestError | UnexpectedReply:
        try:
            error = wire.ErrorReply.model_validate_json(response.content).error
        except ValueError:
            return self._unexpected(response)
        if error.code not in BY_CODE:
            return self._unexpected(response)
        return BY_CODE[error.code](error.message, details=error.details, retry_after=_retry_after(response))

    def _unexpected(self, response: httpx.Response, why: str = "") -> UnexpectedReply:
        beginning = response.content[:200].decode(errors="replace")
        return UnexpectedReply(
            f"{self._way(response.request)} got no AgentPRM reply{why}: HTTP {response.status_code}, {beginning!r}",
            status=response.status_code,
            retry_after=_retry_after(response),
        )

    def _way(self, request: httpx.Request) -> str:
        """Method, address and proxy, without any user and password."""
        through = f" through the proxy {self._policy.proxy}" if self._policy.proxy else ""
        return f"{request.method} {place(request.url)}{through}"


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


def _is_transient(error: Exception) -> bool:
    if isinstance(error, RequestError | UnexpectedReply):
        return error.status in _TRANSIENT_STATUSES
    return isinstance(error, _LOST_CONNECTION)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of the ``Retry-After`` header; None without it, or with a date, which the service never sends."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


@lru_cache(maxsize=32)
def _absolute(base_url: httpx.URL, path: str) -> httpx.URL:
    """The URL of a route. httpx would take a tenth of a call to put it together again."""
    return base_url.copy_with(raw_path=base_url.raw_path.rstrip(b"/") + path.encode())


def _milliseconds(deadline_ms: float) -> float:
    if not _is_number(deadline_ms) or math.isnan(deadline_ms):
        raise InvalidRequest(f"deadline_ms must be a number of milliseconds, not {deadline_ms!r}")
    return float(deadline_ms)


def _checked_id(request_id: object) -> str:
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise InvalidRequest(
            f"request_id must be a text of 1 to 128 printable ASCII characters without spaces, not {request_id!r:.150}"
        )
    return request_id


def _is_number(value: object) -> bool:
    return isinstance(value, Real)
