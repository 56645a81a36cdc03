"""The limits of the HTTP edge in one place: what is bounded, by how much, and what the caller gets.

``docs/security.md`` shows ``LIMITS`` as a table, which a test compares with this file. A limit that an operator sets is
a field of ``Settings``, and its row names that field.
"""

from typing import Final, NamedTuple

from service.queue.shares import PLACES_PER_FREE_PLACE
from service.queue.texts import MAX_WAITING_CHARS

BODY_SECONDS: Final = 30
"""Seconds for a whole body. Without it a client that sends nothing would occupy a slot for ever."""
REFUSAL_SECONDS: Final = 0.02
"""Seconds between two answers with 429 to one caller. 50 a second cost one hundredth of a core."""
HELD_SECONDS: Final = 1
"""Most seconds that a 429 is held back. A caller that waits for ``Retry-After`` waits as long anyway."""


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
    Limit("tokens of an item", "the model's context length", "", "413, soon after the limit is passed"),
    Limit(
        "text of one caller before the tokenizer",
        f"{MAX_WAITING_CHARS:,} characters",
        "",
        "429 with `Retry-After`; a request alone is never refused",
    ),
)
