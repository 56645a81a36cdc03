"""The limits of the HTTP edge in one place: what is bounded, by how much, and what the caller gets.

``docs/security.md`` shows ``LIMITS`` as a table, which a test compares with this file. A limit that an operator sets is
a field of ``Settings``, and its row names that field.
"""

from typing import Final, NamedTuple

from service.queue.texts import MAX_WAITING_CHARS

BODY_SECONDS: Final = 30
"""Seconds for a whole body. Without it a client that sends nothing would occupy a slot for ever."""


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
