"""The limits of the HTTP edge in one place: what is bounded, by how much, and what the caller gets.

``docs/security.md`` shows ``LIMITS`` as a table, which a test compares with this file. A limit that an operator sets is
a field of ``Settings``, and its row names that field.
"""

from typing import Final, NamedTuple

from agentprm.wire.fields import MAX_CALL_ID, MAX_NAME
from agentprm.wire.size import MAX_OBJECTS, MAX_VALUES
from service.queue.shares import PLACES_PER_FREE_PLACE
from service.queue.texts import MAX_WAITING_CHARS

BODY_SECONDS: Final = 30
"""Seconds for a whole body. Without it a client that sends nothing would occupy a slot for ever."""
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
    Limit("bytes of a body", "", "max_body_bytes", "413, as soon as the limit is passed"),
    Limit("bodies of routes that take none", "not read", "", "the answer of the route"),
    Limit("encoding of a body", "gzip or none; decoded bytes count", "", "415"),
    Limit("JSON values of a body", f"{MAX_VALUES:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON objects of a body", f"{MAX_OBJECTS:,}", "", "413, as soon as the limit is passed"),
    Limit("JSON values within all tool arguments of a request", f"{MAX_VALUES:,}", "", "413, before they are parsed"),
    Limit("characters of a name, model or id", f"{MAX_NAME:,}; of a tool call's id {MAX_CALL_ID:,}", "", "422"),
    Limit("errors told of a body", "20: the first of each list", "", "the rest is not looked for"),
    Limit("event loop for bodies over 64 KiB", "20 %", "", "they are decoded one by one, callers in turn"),
    Limit("time for a body to arrive", f"{BODY_SECONDS} s", "", "408"),
    Limit("requests for scores in flight", "", "max_requests", "429, before the body is read"),
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
        f"{1 / REFUSAL_SECONDS:g} a second",
        "",
        f"the next 429 is held back, for {HELD_SECONDS} s at most",
    ),
    Limit("items of a request", "", "max_items", "413"),
    Limit("candidates of an item", "", "max_candidates", "413"),
    Limit(
        "characters of an item", "64 for each token of the context, at least 65,536", "", "413, before it is tokenized"
    ),
    Limit("tokens of an item", "the model's context length", "", "413, soon after the limit is passed"),
    Limit(
        "text of one caller before the tokenizer",
        f"{MAX_WAITING_CHARS:,} characters",
        "",
        "429 with `Retry-After`; a request alone is never refused",
    ),
)
