"""Retries after transient failures: a server that is overloaded, restarts, or lost the connection."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agentprm.errors import NotReady, Overloaded

T = TypeVar("T")

MAX_ATTEMPTS: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 10.0
"""A call whose server asks for a longer pause is not repeated; its ``retry_after`` goes to the caller."""


async def with_retries(call: Callable[[], Awaitable[T]]) -> T:
    """Returns what ``call`` returns in its first attempt that succeeds.

    Generating changes nothing on the server, so repeating it is safe. A caller with a deadline cancels this.

    Raises:
        Overloaded, NotReady: all attempts failed, or the server asks for a longer pause; ``retry_after`` is set.
        Exception: any other error of ``call``, which is not retried.
    """
    failures = 0
    while True:
        try:
            return await call()
        except (Overloaded, NotReady) as error:
            failures += 1
            backoff = FIRST_PAUSE_SECONDS * 2 ** (failures - 1) * (0.5 + random.random() / 2)
            pause = backoff if error.retry_after is None else error.retry_after
            if failures == MAX_ATTEMPTS or pause > LONGEST_PAUSE_SECONDS:
                error.retry_after = pause
                raise
        await asyncio.sleep(pause)
