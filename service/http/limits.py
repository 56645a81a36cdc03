"""The limits of the HTTP edge in one place: what is bounded, by how much, and what the caller gets.

``docs/security.md`` shows ``LIMITS`` as a table, which a test compares with this file. A limit that an operator sets is
a field of ``Settings``, and its row names that field.
"""

from typing import Final, NamedTuple

from agentprm.wire.fields import MAX_CALL_ID, MAX_NAME
from agentprm.wire.size import MAX_OBJECTS, MAX_VALUES

BODY_SECONDS: Final = 30
"""Seconds for a whole body. Without it a client that sends nothing would occupy a slot for ever."""

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
    Limit("bytes of a body", "", "max_body_bytes", "413, as soon as the limit is passed"),
    Limit("bodies of routes that take none", "not read", "", "the answer of the route"),
    Limit("encoding of a body", "gzip or none; decoded bytes count", "", "415"),
    Limit("JSON values of a body", f"{MAX_VALUES:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON objects of a body", f"{MAX_OBJECTS:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON values within all tool arguments of a request", f"{MAX_VALUES:,}", "", "413, before they are parsed"),
    Limit("characters of a name, model or id", f"{MAX_NAME:,}; of a tool call's id {MAX_CALL_ID:,}", "", "422"),
    Limit("errors told of a body", "20: the first of each list", "", "the rest is not looked for"),
    Limit(
        "event loop for bodies over 64 KiB", "20 %", "", "they are read and decoded in turns, callers one after another"
    ),
    Limit("time for a body to arrive", f"{BODY_SECONDS} s", "", "408"),
    Limit("requests for scores in flight", "", "max_requests", "429, before the body is read"),
    Limit("items of a request", "", "max_items", "413"),
    Limit("candidates of an item", "", "max_candidates", "413"),
    Limit(
        "characters of an item", "64 for each token of the context, at least 65,536", "", "413, before it is tokenized"
    ),
)
