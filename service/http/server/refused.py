"""Why a connection's bytes are no request: the reply, and the reason that is counted."""

from agentprm.errors import InvalidRequest, RequestError, TooLong, TooSlow


class Refused(Exception):
    """Bytes that are not passed on to the application.

    ``status`` is such as "400 Bad Request", ``reason`` one of ``connections.REASONS``.
    """

    def __init__(self, status: str, error: RequestError, reason: str) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.reason = reason


def malformed() -> Refused:
    return Refused("400 Bad Request", InvalidRequest("this is no valid HTTP/1.1 request"), "malformed")


def headers_too_long(limit: int, unit: str) -> Refused:
    error = TooLong(f"the request has over {limit} {unit} before its body", details={"limit": limit})
    return Refused("431 Request Header Fields Too Large", error, "header_bytes" if unit == "bytes" else "headers")


def headers_too_late(seconds: float) -> Refused:
    error = TooSlow(f"the headers did not arrive within {seconds:g} s")
    return Refused("408 Request Timeout", error, "header_time")


def too_far_ahead() -> Refused:
    error = InvalidRequest("too many requests were sent ahead of their replies")
    return Refused("400 Bad Request", error, "pipelined")
