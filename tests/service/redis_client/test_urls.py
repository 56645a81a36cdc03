"""A Redis URL means what was meant, or is refused; nothing that is printed holds a part of its password."""

import asyncio
import logging
import traceback
from unittest.mock import patch
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.metrics import Metrics
from service.redis_client.connections import connect
from service.redis_client.urls import RedisURL, RedisURLError, parse_redis_url
from service.score_cache.inspection import RedisFailed, count, open_server
from service.score_cache.redis_tier import RedisTier
from service.settings import SettingsError, load_settings
from testbed.processes import HOST, PATIENCE, free_port
from testbed.redis import RedisServer
from tests.service.score_cache.caching import caching, warnings

ENCODED = "its password has to be percent-encoded"
NUMBER = "its database must be a number"
OPTION = "its query may hold only client_name, db, "
MISREAD = {
    # The client library takes 12 for the port of localhost, and all databases but the last one for 0.
    "redis://:12#x@host": ENCODED,
    "redis://host/cache": NUMBER,
    "redis://host/0/1": NUMBER,
    "redis://host/-1": NUMBER,
    "redis://host/1x": NUMBER,
    "redis://host/\N{ARABIC-INDIC DIGIT THREE}": NUMBER,
    "redis://host?db=-1": NUMBER,
    "redis://host?db=cache": NUMBER,
    "redis://host?db=": NUMBER,
    "redis://host/1?db=2": "it names a database twice",
    "redis://host?db=1&db=2": "each once",
    "redis://host?colour=blue": OPTION,
    "redis://host?password=hunter2": OPTION,
    "redis://host?decode_responses=yes": OPTION,
    "redis://host?ssl_ca_certs=/ca.pem": "those of TLS after rediss://",
    "redis://host?max_connections=many": "a value of the wrong type",
    "rediss://host?ssl_min_version=new": "a value of the wrong type",
    "redis://host:0": "its port a number up to 65535",
    "redis://host:65536": "its port a number up to 65535",
    "redis://host:-1": "its port a number up to 65535",
    "redis://host:http": "its port a number up to 65535",
    "redis://host:": "its port a number up to 65535",
    "redis://::1:6379": "it names no host",
    "redis://host:1,other:2": "several hosts need redis+sentinel:// or redis+cluster://",
    "redis://": "it names no host",
    "redis:///0": "it names no host",
    "redis://:secret@": "it names no host",
    "redis://:secret@:6379/0": "it names no host",
    "redis://user:pass word@host": "white space",
    "redis://ho\nst/0": "white space",
    "redis://:a@b@host": ENCODED,
    "redis://:a/b@host": ENCODED,
    "redis://:a?b@host": ENCODED,
    "redis://:a@b/0?client_name=c@host": ENCODED,
    "redis://:caf%e9@host": "not UTF-8",
    "unix://run/redis.sock": "a socket has no host",
    "unix://": "it names no socket",
    "unix://:a/b@/run/redis.sock": ENCODED,
    "redis+sentinel://:a#b@host:1/scores": ENCODED,
    "redis+sentinel://:a@b@host:1/scores": ENCODED,
    "redis+sentinel://host:1/scores/cache": NUMBER,
    "redis+sentinel://host:1/scores/0/1": NUMBER,
    "redis+sentinel://host:1/scores?db=-1": NUMBER,
    "redis+sentinel://host:1,:2/scores": "needs a port",
    "redis+sentinel://host:1,other:99999/scores": "its port a number up to 65535",
    "redis+cluster://:a?b@host:1": ENCODED,
    "redis+cluster://host:1/0": "a cluster has none",
    "redis+cluster://host:1?colour=blue": OPTION,
    "redis+other://host:1": "must begin with redis://",
    "redis:host": "must begin with redis://",
}


@pytest.mark.parametrize(("url", "complaint"), MISREAD.items())
def test_a_url_that_the_client_library_would_misread_is_refused_in_a_sentence(url: str, complaint: str) -> None:
    with pytest.raises(RedisURLError) as refused:
        connect(url, timeout=1)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def direct(host: str = "host", port: int = 6379, database: int = 0) -> RedisURL:
    return RedisURL("server", False, ((host, port),), "", database, {}, {})


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://host", direct()),
        ("redis://host/", direct()),
        ("redis://host:6380/3\n", direct(port=6380, database=3)),
        ("redis://host?db=3", direct(database=3)),
        ("redis://@host", direct()),
        ("redis://[::1]:6380", direct("::1", 6380)),
        ("unix:///run/redis@6379.sock", RedisURL("unix", False, (), "/run/redis@6379.sock", 0, {}, {})),
    ],
)
def test_a_url_is_read_as_documented(url: str, meant: RedisURL) -> None:
    assert parse_redis_url(url) == meant


def test_options_have_the_types_that_the_client_library_wants() -> None:
    parsed = parse_redis_url("rediss://u:p@host?ssl_check_hostname=no&health_check_interval=5&client_name=a%40b")
    assert (parsed.tls, parsed.login) == (True, {"username": "u", "password": "p"})
    assert parsed.options == {"ssl_check_hostname": False, "health_check_interval": 5, "client_name": "a@b"}


URLS = (
    "redis://:{}@host:6379/0",
    "rediss://user:{}@host",
    "unix://:{}@/run/redis.sock",
    "redis+sentinel://:{}@host:1,host:2/scores/1",
    "rediss+sentinel://user:{}@host:1/scores",
    "rediss+cluster://user:{}@host:1",
)
any_url = st.sampled_from(URLS)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), any_url)
def test_any_percent_encoded_password_is_read_exactly(password: str, url: str) -> None:
    assert parse_redis_url(url.format(quote(password, safe=""))).login["password"] == password


ODD = "@:/?#[]%&=+, \t\n'\"\\;!JQXZ\N{LATIN SMALL LETTER E WITH ACUTE}\N{ACCOUNT OF}"
passwords = st.text(st.sampled_from(ODD))
"""Passwords of which no four characters in a row are part of what the service says of itself."""


def shows(text: str, password: str) -> bool:
    """Returns whether a text holds more than three characters in a row of the password, as given or escaped."""
    parts = {password[start : start + 4] for start in range(len(password) - 3)}
    return any(part in text or repr(part)[1:-1] in text for part in parts)


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@settings(max_examples=500)
@given(st.text(st.sampled_from(ODD + "0123")), any_url)
def test_a_password_that_is_not_encoded_is_read_as_it_is_or_refused_and_never_shown(password: str, url: str) -> None:
    try:
        parsed = parse_redis_url(url.format(password))
        shown = repr(parsed) + repr(connect(url.format(password), timeout=1))
    except RedisURLError as error:
        shown = printed(error)
    else:
        assert parsed.login.get("password", "") == unquote(password)
    assert not shows(shown, password)


@settings(max_examples=100)
@given(passwords, st.sampled_from((*URLS, "http://user:{}@host", "http:/user:{}@host", "user:{}@host")))
def test_the_settings_show_no_password(password: str, url: str) -> None:
    for name in ("REDIS_URL", "JUDGE_URL", "POLICY_URL"):
        with patch.dict("os.environ", {f"AGENTPRM_{name}": url.format(password)}):
            try:
                shown = repr(load_settings()) + str(load_settings())
            except SettingsError as error:
                shown = printed(error)
        assert not shows(shown, password)


class Lines(logging.Handler):
    """The log lines so far, and an event for the first."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.first = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.first.set()


@settings(max_examples=10)
@given(passwords.filter(lambda password: len(password) > 3))
def test_a_redis_out_of_reach_shows_no_password_in_log_metrics_and_commands(password: str) -> None:
    log, metrics = Lines(), Metrics()

    async def scenario() -> str:
        url = f"redis://:{quote(password, safe='')}@{HOST}:{free_port()}"
        cache = RedisTier(connect(url, timeout=1), "test", budget=1.0, ttl=1, observer=metrics.score_cache)
        starting = asyncio.create_task(cache.start())
        await log.first.wait()
        starting.cancel()
        await asyncio.wait({starting})
        await cache.close()
        with pytest.raises(RedisFailed) as refused:
            async with open_server(url) as server:
                await count(server, "test")
        return str(refused.value)

    logger = logging.getLogger("service")
    logger.addHandler(log)
    try:
        said = asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    finally:
        logger.removeHandler(log)
    shown = "\n".join([said, *log.lines, metrics.exposition().decode()])
    assert not shows(shown, quote(password, safe=""))
    assert not shows(shown, password)


@pytest.mark.usefixtures("brief_start")
def test_a_database_that_the_server_does_not_have_is_named(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> str:
        async with caching(f"{server.url}/99"):
            pass
        with pytest.raises(RedisFailed) as refused:
            async with open_server(f"{server.url}/99") as opened:
                await count(opened, "test")
        return str(refused.value)

    assert asyncio.run(scenario()) == "the server has no database 99"
    assert "reading scores from Redis: a probe failed: the server has no database 99" in warnings(caplog)
