"""Again after what passes: a server that is overloaded, restarts, or lost the connection."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agentprm.errors import NotReady, Overloaded

T = TypeVar("T")

ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 10.0
"""A server that asks for more patience is asked no more, and its wish handed on."""


async def with_retries(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` returns in one of its attempts; generating changes nothing, so it may be done twice.

    Whoever has a deadline cancels. Raises what the last attempt raised, and tells when to come again.
    """
    failures = 0
    while True:
        try:
            return await call()
        except (Overloaded, NotReady) as error:
            failures += 1
            backoff = FIRST_PAUSE_SECONDS * 2 ** (failures - 1) * (0.5 + random.random() / 2)
            pause = backoff if error.retry_after is None else error.retry_after
            if failures == ATTEMPTS or pause > LONGEST_PAUSE_SECONDS:
                error.retry_after = pause
                raise
        await asyncio.sleep(pause)
