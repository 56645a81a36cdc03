"""The scores in Redis by checkpoint, and their purge: in portions, so that nobody else waits for long.

Knows a checkpoint only by the part of its digest that keys show.
"""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from agentprm.errors import AgentPRMError
from service.redis_client.connections import RedisServer, connect, kind_of
from service.score_cache.keys import Key, checkpoint_prefix, namespace_prefix

PORTION: Final = 500
"""Keys in one UNLINK."""
PATIENCE_SECONDS: Final = 5.0
"""For each step of each command; a script must not hang."""
_SCORE: Final = re.compile(rb"([0-9a-f]{16}):\{")
"""How the key of a score goes on after its namespace; the service's probe does not."""
_TROUBLES: Final = {
    "timeout": f"Redis did not answer within {PATIENCE_SECONDS:g} seconds",
    "connection": "Redis cannot be reached",
    "auth": "Redis refuses the user or the password of the URL, or does not allow that user SCAN and UNLINK",
    "loading": "Redis is still loading its data",
    "readonly": "this Redis is a read-only replica; the URL must lead to the primary",
    "protocol": "what answers does not speak Redis",
}


class RedisTrouble(AgentPRMError):
    """Redis did not do what it was asked to. The message quotes no server: some repeat a password in their errors."""


async def count(server: RedisServer, namespace: str, digest: str | None = None) -> Counter[str]:
    """Scores by part of digest: of one checkpoint, or of all.

    While Redis resizes its table, SCAN may show a key twice; such a score is counted twice.
    """
    scores = Counter[str]()
    async for portion in _portions(server, namespace, digest):
        scores.update({part: len(keys) for part, keys in portion.items()})
    return scores


async def purge(server: RedisServer, namespace: str, digest: str | None = None) -> Counter[str]:
    """Forgets scores: of one checkpoint, or of all. Returns how many there were by part of digest."""
    scores = Counter[str]()
    async for portion in _portions(server, namespace, digest):
        for part, keys in portion.items():
            scores[part] += await server.forget(keys)
    return scores


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisServer]:
    """A server, closed in the end.

    Raises:
        RedisURLError: the URL cannot be used.
        RedisTrouble: whatever the client raises inside, as one sentence.
    """
    server = connect(url, timeout=PATIENCE_SECONDS)
    try:
        yield server
    except Exception as error:
        raise RedisTrouble(_sentence(error)) from error
    finally:
        with suppress(Exception):  # what was asked is done, or has failed already
            await server.close()


async def _portions(server: RedisServer, namespace: str, digest: str | None) -> AsyncIterator[dict[str, list[Key]]]:
    """The keys of scores, some at a time, by part of digest."""
    portion, size = defaultdict[str, list[Key]](list), 0
    start = len(namespace_prefix(namespace))
    async for key in server.scan(checkpoint_prefix(namespace, digest) if digest else namespace_prefix(namespace)):
        if not (found := _SCORE.match(key, start)):
            continue
        portion[found[1].decode()].append(key)
        size += 1
        if size == PORTION:
            yield portion
            portion, size = defaultdict(list), 0
    if portion:
        yield portion


def _sentence(error: Exception) -> str:
    trouble = _TROUBLES.get(kind := kind_of(error), "a Redis command failed")
    if kind == "connection":
        return f"{trouble}: {_os_reason(error) or type(error).__name__}"
    return trouble if kind in _TROUBLES else f"{trouble} ({type(error).__name__})"


def _os_reason(error: BaseException | None) -> str:
    """What the operating system said at the bottom of an error, such as ``Connection refused``."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error.strerror or str(error) if error is not None else ""
