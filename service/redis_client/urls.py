"""Redis URLs, read strictly: what could be read in two ways is refused.

    redis://[user:password@]host[:port][/db]                         rediss:// the same over TLS
    unix://[user:password@]/path[?db=number]                         a socket of the file system
    redis+sentinel://[user:password@]host:port,host:port/name[/db]   the master that the sentinels call ``name``
    redis+cluster://[user:password@]host:port,host:port              any of the cluster's nodes

``rediss+sentinel`` and ``rediss+cluster`` are the last two over TLS.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

from agentprm.errors import AgentPRMError

DEFAULT_PORT: Final = 6379
OPTIONS: Final = ("client_name", "db", "health_check_interval", "max_connections")
"""Options that the query of a URL may give to the client library; the service decides about the others."""
TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_exclude_verify_flags",
    "ssl_include_verify_flags",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
)
"""Further options of a URL with ``rediss``."""

_SCHEME: Final = re.compile(r"(?P<tls>redis(s?))(?:\+(?P<kind>sentinel|cluster))?|unix")
_UNREADABLE: Final = re.compile(r"[\s\x00-\x1f\x7f]")
"""Characters that urllib drops or cuts off without a word."""
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?")
_DATABASE: Final = re.compile(r"[0-9]{1,9}")


_PARSERS: Final[dict[str, Callable[[str], object]]] = {
    name: parse for name, parse in URL_QUERY_ARGUMENT_PARSERS.items() if name != "db"
}


class RedisURLError(AgentPRMError):
    """A Redis URL cannot be used. The message quotes no part of it: any part may belong to a password."""


@dataclass(frozen=True, slots=True)
class RedisURL:
    """The parts of a URL, percent-decoded. Its representation shows no password."""

    kind: str
    """``server``, ``unix``, ``sentinel`` or ``cluster``."""
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    """Of a socket: its path. Behind sentinels: the name of the master."""
    database: int
    login: dict[str, str] = field(repr=False)
    """``username`` and ``password``, as far as the URL has them."""
    options: dict[str, Any] = field(repr=False)
    """Options for the client library, without ``db``."""


def parse_redis_url(url: str) -> RedisURL:
    """Reads a URL. White space around it is cut off: a file that holds it may end in a line break.

    Raises:
        RedisURLError: it cannot be used; the message says why.
    """
    url = url.strip()
    if not (scheme := _SCHEME.fullmatch(url.partition("://")[0])) or "://" not in url:
        raise RedisURLError(
            "the Redis URL must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    kind = scheme["kind"] or ("server" if scheme["tls"] else "unix")
    tls = scheme["tls"] == "rediss"
    parts = _split(url, kind)
    login, _, addresses = parts.netloc.rpartition("@")
    options = _options(parts.query, (*OPTIONS, *TLS_OPTIONS) if tls else OPTIONS)
    in_query = options.pop("db", None)
    path, database = _path_and_database(kind, parts.path)
    if database and in_query is not None:
        _refuse("it names a database twice")
    number = _database(in_query if in_query is not None else database or "0")
    return RedisURL(kind, tls, _hosts(kind, addresses), path, number, _login(login), options)


def _refuse(why: str) -> NoReturn:
    """Raises RedisURLError without the error that led to it, whose message may quote a password."""
    raise RedisURLError(f"the Redis URL cannot be read: {why}") from None


def _split(url: str, kind: str) -> SplitResult:
    """Splits a URL in which the password, if there is one, ends at the only ``@``."""
    if _UNREADABLE.search(url):
        _refuse("it holds white space or a control character; in a password a space is written %20")
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse("its password has to be percent-encoded")
    behind = url.partition("://")[2][len(parts.netloc) :]
    is_plain_socket = kind == "unix" and not parts.netloc
    if "#" in url or parts.netloc.count("@") > 1 or ("@" in behind and not is_plain_socket):
        _refuse(
            "its password has to be percent-encoded: '@' is written %40, '/' %2F, '?' %3F, '#' %23, ':' %3A and '%' %25"
        )
    return parts


def _options(query: str, known: tuple[str, ...]) -> dict[str, Any]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options: dict[str, Any] = dict(pairs)
    if len(options) < len(pairs) or not set(options) <= set(known):
        _refuse(
            f"its query may hold only {', '.join(known)}, each once"
            + ("" if "ssl_password" in known else ", and those of TLS after rediss://")
        )
    try:
        return {name: _PARSERS[name](text) if name in _PARSERS else text for name, text in options.items()}
    except ValueError:
        _refuse("an option of its query has a value of the wrong type")


def _path_and_database(kind: str, path: str) -> tuple[str, str]:
    """Returns the path of a socket or the name of a master, and the database in the URL's path."""
    if kind == "unix":
        if len(path) < 2:
            _refuse("it names no socket; a path begins with a slash, as in unix:///run/redis.sock")
        return _decode(path), ""
    path = path.strip("/")
    if kind == "sentinel":
        name, _, database = path.partition("/")
        if not name:
            raise RedisURLError("the Redis URL must end in the name that the sentinels know the master by")
        return _decode(name), database
    if kind == "cluster" and path:
        raise RedisURLError("the Redis URL names a database, and a cluster has none")
    return "", path


def _database(text: str) -> int:
    if not _DATABASE.fullmatch(text):
        _refuse("its database must be a number, as in redis://host:6379/0")
    return int(text)


def _hosts(kind: str, addresses: str) -> tuple[tuple[str, int], ...]:
    if kind == "unix":
        if addresses:
            _refuse("a socket has no host; its path begins with a slash, as in unix:///run/redis.sock")
        return ()
    if kind == "server" and "," in addresses:
        _refuse("several hosts need redis+sentinel:// or redis+cluster://")
    return tuple(_address(kind, address) for address in addresses.split(","))


def _address(kind: str, text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if kind != "server" and not (found and found["port"]):
        raise RedisURLError("every host of the Redis URL needs a port, as in host:6379")
    if not text.partition(":")[0]:
        _refuse("it names no host")
    if not found or not 0 < (port := int(found["port"] or DEFAULT_PORT)) < 65536:
        _refuse("a host is a name or an address, and its port a number up to 65535, as in host:6379")
    return found["host"].strip("[]"), port


def _login(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    return {name: _decode(part) for name, part in (("username", user), ("password", password)) if part}


def _decode(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        _refuse("what is percent-encoded in it is not UTF-8")
