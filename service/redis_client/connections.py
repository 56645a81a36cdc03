"""Redis clients from a URL: one server, a master found by Sentinel, or a Cluster.

The only module that knows the client library.

    redis://[user:password@]host:port[/db]                         rediss:// the same over TLS, unix:// a socket
    redis+sentinel://[user:password@]host:port,host:port/name[/db]  the master that the sentinels call ``name``
    redis+cluster://[user:password@]host:port,host:port             any of the cluster's nodes

``rediss+sentinel`` and ``rediss+cluster`` are the last two over TLS. Options of the client (``ssl_ca_certs``,
``ssl_certfile``, ...) go into the query.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from agentprm.errors import AgentPRMError

MAX_CONNECTIONS: Final = 64
_DIRECT: Final = ("redis", "rediss", "unix")
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


class RedisURLError(AgentPRMError):
    """A Redis URL cannot be used. The message does not quote it: it may hold a password."""


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

    def __init__(self, client: Redis | RedisCluster, *sentinels: Redis) -> None:
        self._client: Any = client  # the library's types lack some of its methods
        self._sentinels = sentinels
        self._cluster = isinstance(client, RedisCluster)

    async def read(self, keys: Sequence[bytes]) -> list[object]:
        """Returns the value of each key, None for a missing one. One round trip, or one to each node of a cluster."""
        values: object = await (self._client.mget_nonatomic if self._cluster else self._client.mget)(keys)
        if not isinstance(values, list) or len(values) != len(keys):
            raise ValueError(f"no list of {len(keys)} values for {len(keys)} keys")
        return values

    async def write(self, values: Mapping[bytes, bytes], ttl: int) -> None:
        """Stores all in one round trip. They expire after ``ttl`` seconds; 0: never."""
        pipeline = self._client.pipeline() if self._cluster else self._client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, value, ex=ttl or None)
        await pipeline.execute()

    async def scan(self, prefix: bytes) -> AsyncIterator[bytes]:
        """Yields the keys that begin with ``prefix``, in batches too small to block other clients. Keys may repeat."""
        async for key in self._client.scan_iter(match=prefix + b"*", count=1000):
            yield key

    async def unlink(self, keys: Sequence[bytes]) -> int:
        """Removes keys; the server frees their memory in the background. Returns how many of them existed."""
        return int(await self._client.unlink(*keys))

    async def take_token(self, key: str, interval: float, seconds: float, *, within: float) -> float:
        """Takes a token from a bucket of ``seconds / interval`` tokens, by the server's clock.

        Returns 0, or the seconds until there will be one. Raises TimeoutError after ``within`` seconds.
        """
        async with asyncio.timeout(within):
            wait = await self._client.eval(_TAKE, 1, key, round(interval * 1e6), round(seconds * 1e6))
        return int(wait) / 1e6

    async def close(self) -> None:
        await asyncio.gather(*(client.aclose() for client in (self._client, *self._sentinels)))


def connect(url: str, *, timeout: float) -> RedisServer:
    """Returns a client, which connects at its first command. ``timeout``: seconds for each step of a command.

    Raises:
        RedisURLError: the URL cannot be used.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # the shortest handshake, and every server that calls itself Redis knows it
        "driver_info": None,
        "max_connections": MAX_CONNECTIONS,
    }
    scheme = url.partition("://")[0]
    try:
        if scheme in _DIRECT:
            client = Redis.from_url(url, **options)
            # Opens no connection, but refuses unknown options.
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            return RedisServer(client)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _by_sentinel(url, options)
        if scheme in ("redis+cluster", "rediss+cluster"):
            return RedisServer(_cluster(url, options))
    except (ValueError, TypeError):  # the message may quote a password, or a part of one that is not percent-encoded
        raise RedisURLError(
            "the Redis URL cannot be read; is its password percent-encoded, and are its options the client's?"
        ) from None
    raise RedisURLError(
        "the Redis URL must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
    )


def _by_sentinel(url: str, options: dict[str, Any]) -> RedisServer:
    hosts, path, given = _parts(url)
    name, _, database = path.partition("/")
    if not name:
        raise RedisURLError("the Redis URL must end in the name that the sentinels know the master by")
    own = {option: value for option, value in options.items() if option != "max_connections"}
    own |= {option: value for option, value in given.items() if option.startswith("ssl")}
    sentinel = Sentinel(hosts, sentinel_kwargs=own, **options, **given)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(name, db=int(database or 0))
    return RedisServer(master, *sentinel.sentinels)


def _cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    hosts, path, given = _parts(url)
    if path:
        raise RedisURLError("the Redis URL names a database, and a cluster has none")
    nodes = [ClusterNode(host, port) for host, port in hosts]
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options, **given)


def _parts(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """Returns hosts, path and client options of a URL with several hosts."""
    parts = urlsplit(url)
    login, _, addresses = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    given: dict[str, Any] = dict(parse_qsl(parts.query))
    if parts.scheme.startswith("rediss"):
        given["ssl"] = True
    given |= {name: unquote(text) for name, text in (("username", user), ("password", password)) if text}
    return [_address(address) for address in addresses.split(",")], parts.path.strip("/"), given


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise RedisURLError("every host of the Redis URL needs a port, as in host:6379")
    return host.strip("[]"), int(port)
