"""Counts and purges the scores in Redis by checkpoint, in batches that do not block other clients for long.

Checkpoints are identified by the part of their digest that keys show.
"""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from agentprm.errors import AgentPRMError
from service.redis_client.connections import NoSuchDatabase, RedisServer, connect, error_kind
from service.score_cache.keys import Key, checkpoint_prefix, namespace_prefix

BATCH_SIZE: Final = 500
"""Keys in one UNLINK command."""
TIMEOUT_SECONDS: Final = 5.0
"""Time limit for each step of a command, so that a script that calls this does not hang."""
_SCORE: Final = re.compile(rb"([0-9a-f]{16}):\{")
"""Rest of a score's key after its namespace. The key of the service's probe does not match."""
_MESSAGES: Final = {
    "timeout": f"Redis did not answer within {TIMEOUT_SECONDS:g} seconds",
    "connection": "Redis cannot be reached",
    "auth": "Redis refuses the user or the password of the URL, or does not allow that user SCAN and UNLINK",
    "loading": "Redis is still loading its data",
    "readonly": "this Redis is a read-only replica; the URL must lead to the primary",
    "protocol": "what answers does not speak Redis",
}


class RedisFailed(AgentPRMError):
    """A Redis command failed. The message does not quote the server: some repeat a password in their errors."""


async def count(server: RedisServer, namespace: str, digest: str | None = None) -> Counter[str]:
    """Counts the scores of one checkpoint, or of all, by the short digest of the checkpoint.

    While Redis resizes its table, SCAN may return a key twice. Its score is then counted twice.
    """
    scores = Counter[str]()
    async for batch in _batches(server, namespace, digest):
        scores.update({part: len(keys) for part, keys in batch.items()})
    return scores


async def purge(server: RedisServer, namespace: str, digest: str | None = None) -> Counter[str]:
    """Removes the scores of one checkpoint, or of all. Returns how many there were by short digest."""
    scores = Counter[str]()
    async for batch in _batches(server, namespace, digest):
        for part, keys in batch.items():
            scores[part] += await server.unlink(keys)
    return scores


@asynccontextmanager
async def open_server(url: str) -> AsyncIterator[RedisServer]:
    """Yields a server and closes it at the end of the block.

    Raises:
        RedisURLError: the URL cannot be used.
        RedisFailed: the block raised an error of the client; the message is one sentence.
    """
    server = connect(url, timeout=TIMEOUT_SECONDS)
    try:
        yield server
    except Exception as error:
        raise RedisFailed(_message(error)) from error
    finally:
        with suppress(Exception):  # the commands are done, or have failed already
            await server.close()


async def _batches(server: RedisServer, namespace: str, digest: str | None) -> AsyncIterator[dict[str, list[Key]]]:
    """Yields the keys of scores by short digest, at most ``BATCH_SIZE`` at a time."""
    batch, size = defaultdict[str, list[Key]](list), 0
    start = len(namespace_prefix(namespace))
    async for key in server.scan(checkpoint_prefix(namespace, digest) if digest else namespace_prefix(namespace)):
        if not (found := _SCORE.match(key, start)):
            continue
        batch[found[1].decode()].append(key)
        size += 1
        if size == BATCH_SIZE:
            yield batch
            batch, size = defaultdict(list), 0
    if batch:
        yield batch


def _message(error: Exception) -> str:
    if isinstance(error, NoSuchDatabase):
        return str(error)
    message = _MESSAGES.get(kind := error_kind(error), "a Redis command failed")
    if kind == "connection":
        return f"{message}: {_os_reason(error) or type(error).__name__}"
    return message if kind in _MESSAGES else f"{message} ({type(error).__name__})"


def _os_reason(error: BaseException | None) -> str:
    """Returns the operating system's message at the root of an error, such as ``Connection refused``; empty if none."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error.strerror or str(error) if error is not None else ""
