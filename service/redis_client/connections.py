"""Redis clients from a URL: one server, a master found by Sentinel, or a Cluster.

With ``service.redis_client.urls`` the only modules that know the client library.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.redis_client.urls import RedisURL, RedisURLError, parse_redis_url

MAX_CONNECTIONS: Final = 64
_KINDS: Final[tuple[tuple[str, tuple[type[Exception], ...]], ...]] = (
    ("timeout", (TimeoutError, exceptions.TimeoutError)),
    (
        "auth",
        (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.AuthenticationWrongNumberOfArgsError,
            exceptions.NoPermissionError,
        ),
    ),
    ("loading", (exceptions.BusyLoadingError,)),
    ("readonly", (exceptions.ReadOnlyError,)),
    ("oom", (exceptions.OutOfMemoryError,)),
    ("protocol", (exceptions.InvalidResponse, ValueError)),
    ("connection", (exceptions.ConnectionError, exceptions.RedisClusterException, OSError)),
)

_IN_PIPELINE: Final = re.compile(r"Command # .* caused error: \(['\"](.*)['\"],\)", re.DOTALL)
"""The client's message for a failed pipeline. It quotes the command, with a key and the bytes of a value."""
_CODE: Final = re.compile(r"([A-Z]{3,}) ")
"""The code at the beginning of a server's error."""

_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local most = now + tonumber(ARGV[2])
local full_at = math.min(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now), most) + tonumber(ARGV[1])
local wait = full_at - most
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return 0
"""
"""Takes a token from a bucket, which is stored as the time in microseconds at which it is full. Its key expires then.

KEYS: the bucket. ARGV: microseconds in which one token comes back, and in which the whole bucket fills. Returns 0, or
the microseconds until there is a token.
"""


class NoSuchDatabase(exceptions.ResponseError):
    """The server has no database of the number in the Redis URL."""


def error_kind(error: BaseException) -> str:
    """Returns the metric label of an error, one of ``score_cache.contract.ERROR_KINDS``."""
    return next((kind for kind, classes in _KINDS if isinstance(error, classes)), "other")


def safe_message(error: BaseException) -> str:
    """Returns a message about ``error`` that may be logged: it holds no password, key or value.

    If the client has no class for the error, the message is only the error's code: a server without AUTH repeats the
    password.
    """
    if isinstance(error, exceptions.InvalidResponse):
        return "what answers does not speak Redis"
    message = _IN_PIPELINE.sub(r"\1", str(error))
    if type(error) is exceptions.ResponseError:
        code = _CODE.match(message)
        return f"the server answers {code[1]}" if code else "the server answers with an error"
    return message or type(error).__name__


class RedisServer:
    """The few Redis commands that this service needs, the same for one server and for a cluster.

    Methods raise the client's errors. Nothing is retried, except after a cluster has moved its slots.
    """

    def __init__(self, client: Redis | RedisCluster, *sentinels: Redis, database: int = 0) -> None:
        self._client: Any = client  # the library's types lack some of its methods
        self._sentinels = sentinels
        self._cluster = isinstance(client, RedisCluster)
        self._database = database

    async def read(self, keys: Sequence[bytes]) -> list[object]:
        """Returns the value of each key, None for a missing one. One round trip, or one to each node of a cluster."""
        with self._naming_the_database():
            values: object = await (self._client.mget_nonatomic if self._cluster else self._client.mget)(keys)
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError(f"no list of {len(keys)} values for {len(keys)} keys")
        return values

    async def write(self, values: Mapping[bytes, bytes], ttl: int) -> None:
        """Stores all in one round trip. They expire after ``ttl`` seconds; 0: never."""
        pipeline = self._client.pipeline() if self._cluster else self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, ex=ttl or None)
        with self._naming_the_database():
            await pipeline.execute()

    async def scan(self, prefix: bytes) -> AsyncIterator[bytes]:
        """Yields the keys that begin with ``prefix``, in batches too small to block other clients. Keys may repeat."""
        with self._naming_the_database():
            async for key in self._client.scan_iter(match=prefix + b"*", count=1000):
                yield key

    async def unlink(self, keys: Sequence[bytes]) -> int:
        """Removes keys; the server frees their memory in the background. Returns how many of them existed."""
        return int(await self._client.unlink(*keys))

    async def take_token(self, key: str, interval: float, seconds: float, *, within: float) -> float:
        """Takes a token from a bucket of ``seconds / interval`` tokens, by the server's clock.

        Returns 0, or the seconds until there will be one. Raises TimeoutError after ``within`` seconds.
        """
        with self._naming_the_database():
            async with asyncio.timeout(within):
                wait = await self._client.eval(_TAKE, 1, key, round(interval * 1e6), round(seconds * 1e6))
        return int(wait) / 1e6

    @contextmanager
    def _naming_the_database(self) -> Iterator[None]:
        """Says which database the server does not have: a connection selects it before its first command."""
        try:
            yield
        except exceptions.ResponseError as error:
            if "DB index" in str(error):  # "DB index is out of range", "invalid DB index"
                raise NoSuchDatabase(f"the server has no database {self._database}") from error
            raise

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client in (self._client, *self._sentinels)))


def connect(url: str, *, timeout: float) -> RedisServer:
    """Returns a client, which connects at its first command. ``timeout``: seconds for each step of a command.

    Raises:
        RedisURLError: the URL cannot be used.
    """
    parsed = parse_redis_url(url)
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # the shortest handshake, and every server that calls itself Redis knows it
        "driver_info": None,
        "max_connections": MAX_CONNECTIONS,
        **parsed.login,
        **parsed.options,
    }
    try:
        if parsed.kind == "sentinel":
            return _by_sentinel(parsed, options)
        if parsed.kind == "cluster":
            return _cluster(parsed, options)
        return _direct(parsed, options)
    except (ValueError, TypeError, exceptions.RedisError):  # the message may quote the value of an option
        raise RedisURLError("the Redis URL cannot be used: an option of its query has a wrong value") from None


def _direct(url: RedisURL, options: dict[str, Any]) -> RedisServer:
    if url.kind == "unix":
        options |= {"connection_class": UnixDomainSocketConnection, "path": url.path}
    else:
        ((host, port),) = url.hosts
        options |= {"connection_class": SSLConnection if url.tls else Connection, "host": host, "port": port}
    pool = ConnectionPool(db=url.database, **options)
    # Opens no connection, but refuses options that cannot be used.
    pool.make_connection()  # type: ignore[no-untyped-call]
    return RedisServer(Redis.from_pool(pool), database=url.database)


def _by_sentinel(url: RedisURL, options: dict[str, Any]) -> RedisServer:
    options |= {"ssl": True} if url.tls else {}
    of_the_master_alone = {"max_connections", "client_name", "health_check_interval", *url.login}
    own = {option: value for option, value in options.items() if option not in of_the_master_alone}
    sentinel = Sentinel(url.hosts, sentinel_kwargs=own, **options)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(url.path, db=url.database)
    return RedisServer(master, *sentinel.sentinels, database=url.database)


def _cluster(url: RedisURL, options: dict[str, Any]) -> RedisServer:
    options |= {"ssl": True} if url.tls else {}
    nodes = [ClusterNode(host, port) for host, port in url.hosts]
    return RedisServer(RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options))
