"""The limits of the HTTP edge in one place: what is bounded, by how much, and what the caller gets.

``docs/security.md`` shows ``LIMITS`` as a table, which a test compares with this file. A limit that an operator sets is
a field of ``Settings``, and its row names that field.
"""

from typing import Final, NamedTuple

from agentprm.wire.decode import MAX_REPORTED_ERRORS
from agentprm.wire.fields import MAX_CALL_ID, MAX_NAME
from agentprm.wire.per_item import MAX_ERRORS_OF_ITEM, MAX_REFUSED_ITEMS
from agentprm.wire.size import MAX_DEPTH, MAX_OBJECTS, MAX_VALUES
from service.queue.shares import PLACES_PER_FREE_PLACE
from service.queue.texts import CHARACTERS_PER_TOKEN, LEAST_CHARACTERS, MAX_WAITING_CHARS

MAX_CONNECTIONS: Final = 8192
"""Connections at once, where the process's limit of file descriptors allows as many. An idle one takes about 10 KB."""
SPARE_DESCRIPTORS: Final = 128
"""File descriptors that connections leave for Redis, workers, files and refused connections."""
BACKLOG: Final = 2048
"""Connections that wait in the kernel to be accepted."""
HEADER_BYTES: Final = 32 * 1024
"""Bytes of a request line and its headers. Cookies and tokens of real callers stay below 16 KiB."""
HEADERS: Final = 100
"""Headers of a request, as in Apache: each is searched several times."""
HEADER_SECONDS: Final = 10
"""Seconds from the first byte of a request to the end of its headers, which fit into a few packets."""
KEEP_ALIVE_SECONDS: Final = 75
"""Seconds without a request. It is above the 60 that load balancers usually keep an idle connection."""
HANDSHAKE_SECONDS: Final = 10
"""Seconds for a TLS handshake, which is a few round trips."""
DISPLACED_SECONDS: Final = 1
"""Seconds without a request after which a connection may be closed to make room: its request is not on its way."""
PIPELINED: Final = 16
"""Requests that one connection may send ahead of their replies. Clients in use send none."""
BODY_SECONDS: Final = 30
"""Seconds for a whole body. Without it a client that sends nothing would occupy a slot for ever."""
UNREAD_BYTES: Final = 32 * 1024**2
"""Bytes of a body that are thrown away after an early refusal, so that a caller who sends first reads the reply."""
UNREAD_SECONDS: Final = 10
"""Seconds for the same: 32 MiB at 27 Mbit/s."""
WRITE_SECONDS: Final = 20
"""Seconds in which a caller must take ``WRITE_BYTES`` of a reply that waits for it."""
WRITE_BYTES: Final = 16 * 1024
"""Bytes of a reply that count as progress."""
REFUSED_SECONDS: Final = 1
"""Seconds that a refused connection has to send its request and to read the 503."""
LAST_REQUEST_SECONDS: Final = 1
"""Seconds that an open connection has, after a signal to stop, for a request that is on its way."""
REFUSAL_SECONDS: Final = 0.02
"""Seconds between two answers with 429 to one caller. 50 a second cost one hundredth of a core."""
HELD_SECONDS: Final = 1
"""Most seconds that a 429 is held back. A caller that waits for ``Retry-After`` waits as long anyway."""
SMALL_BODY: Final = 64 * 1024
"""Bytes of a body that is decoded at once. It takes 10 ms at most, and most bodies are smaller."""
LARGE_BODIES_PAUSE: Final = 4.0
"""Pause after a large body is decoded, as a multiple of the time that took: they get a fifth of the event loop."""


class Limit(NamedTuple):
    """One row of the table."""

    bounded: str
    """What is bounded, in a few words."""
    amount: str
    """How much is allowed, with its unit; empty if the setting's default says it."""
    setting: str
    """The field of ``Settings`` that sets it; empty if it is fixed."""
    answer: str
    """What the caller gets beyond it."""


LIMITS: Final = (
    Limit(
        "connections",
        f"{MAX_CONNECTIONS:,}, or the limit of file descriptors less {SPARE_DESCRIPTORS}",
        "",
        "the longest idle one is closed; 503 if none is idle",
    ),
    Limit("connections not yet accepted", f"{BACKLOG:,}", "", "the kernel lets them wait"),
    Limit("time for a TLS handshake", f"{HANDSHAKE_SECONDS} s", "", "closed"),
    Limit("time without a request", f"{KEEP_ALIVE_SECONDS} s", "", "closed"),
    Limit("bytes of a request line and headers", f"{HEADER_BYTES:,}", "", "431, closed"),
    Limit("headers of a request", f"{HEADERS}", "", "431, closed"),
    Limit("time for headers to arrive", f"{HEADER_SECONDS} s", "", "408, closed"),
    Limit("requests sent ahead of their replies", f"{PIPELINED}", "", "closed after the replies"),
    Limit("bytes of a body", "", "max_body_bytes", "413, as soon as the limit is passed"),
    Limit("bodies of routes that take none", "not read", "", "the answer of the route"),
    Limit("encoding of a body", "gzip or none; decoded bytes count", "", "415"),
    Limit("JSON values of a body", f"{MAX_VALUES:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON objects of a body", f"{MAX_OBJECTS:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON values within all tool arguments of a request", f"{MAX_VALUES:,}", "", "413, before they are parsed"),
    Limit("depth of the arguments of a tool call", f"{MAX_DEPTH}", "", "422"),
    Limit("characters of a name, model or id", f"{MAX_NAME:,}; of a tool call's id {MAX_CALL_ID:,}", "", "422"),
    Limit("errors told of a body", f"{MAX_REPORTED_ERRORS}: the first of each list", "", "the rest is not looked for"),
    Limit(
        "wrong items told apart, with `on_error: item`",
        f"{MAX_REFUSED_ITEMS:,}, and {MAX_ERRORS_OF_ITEM} errors of each",
        "",
        "422; the rest of an item's errors is not told",
    ),
    Limit(
        f"event loop for bodies over {SMALL_BODY // 1024} KiB",
        f"{1 / (1 + LARGE_BODIES_PAUSE):.0%}",
        "",
        "they are read and decoded in turns, callers one after another",
    ),
    Limit("time for a body to arrive", f"{BODY_SECONDS} s", "", "408"),
    Limit(
        "rest of a body after an early reply",
        f"{UNREAD_BYTES:,} bytes, {UNREAD_SECONDS} s",
        "",
        "closed; the caller may miss the reply",
    ),
    Limit("time to take a reply", f"{WRITE_SECONDS} s for each {WRITE_BYTES:,} bytes", "", "closed"),
    Limit("requests for scores or with outcomes in flight", "", "max_requests", "429, before the body is read"),
    Limit(
        "requests of one caller in flight",
        f"{PLACES_PER_FREE_PLACE} for each place still free",
        "",
        "429, before the body is read",
    ),
    Limit("tokens that wait to be computed", "", "max_queue_tokens", "429; 413 if the request alone has more"),
    Limit("calls that wait for a text-generation server", "", "max_remote_queue", "429; 413 as above"),
    Limit(
        "answers with 429 to one caller",
        f"{1 / REFUSAL_SECONDS:g} a second, fewer if they took long to come about",
        "",
        f"the next 429 is held back, for {HELD_SECONDS} s at most",
    ),
    Limit("items of a request", "", "max_items", "413"),
    Limit("candidates of an item", "", "max_candidates", "413"),
    Limit(
        "characters of an item",
        f"{CHARACTERS_PER_TOKEN} for each token of the context, at least {LEAST_CHARACTERS:,}",
        "",
        "413, before it is tokenized",
    ),
    Limit("tokens of an item", "the model's context length", "", "413, soon after the limit is passed"),
    Limit(
        "text of one caller before the tokenizer",
        f"{MAX_WAITING_CHARS:,} characters",
        "",
        "429 with `Retry-After`; a request alone is never refused",
    ),
)
