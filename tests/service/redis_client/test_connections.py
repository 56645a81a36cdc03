"""Redis from a URL: one server, over a socket or TLS, behind Sentinel, as a Cluster; and URLs that lead nowhere."""

import asyncio
import shutil
import subprocess
import traceback
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from service.redis_client.connections import connect
from service.redis_client.urls import RedisURLError
from testbed.processes import HOST, PATIENCE, free_port, wait_until
from testbed.redis import DidNotStart, RedisServer, Start
from tests.service.score_cache.caching import KEYS, SCORES, caching, until

SECRET = "hunter2"
ODD = "p@ss:w/rd#?%+ ,x"
"""A password that has to be percent-encoded."""
UNUSABLE = {
    f"http://:{SECRET}@far:1": "must begin with redis://",
    f"{SECRET}@far:1": "must begin with redis://",
    "": "must begin with redis://",
    f"redis+sentinel://:{SECRET}@far:1": "must end in the name",
    f"redis+sentinel://:{SECRET}@far:1/": "must end in the name",
    f"redis+sentinel://:{SECRET}@far/scores": "every host of the Redis URL needs a port",
    f"redis+sentinel://:{SECRET}@far:1,away/scores": "every host of the Redis URL needs a port",
    f"redis+sentinel://:{SECRET}@far:1/scores/first": "cannot be read",
    f"rediss+cluster://:{SECRET}@far": "every host of the Redis URL needs a port",
    f"redis+cluster://:{SECRET}@:1": "every host of the Redis URL needs a port",
    f"redis+cluster://:{SECRET}@far:1/1": "names a database",
    f"redis+cluster://:{SECRET}@far:1?socket_timeout=1": "cannot be read",
    f"redis+cluster://:{SECRET}@far:1?colour=blue": "cannot be read",
    f"redis://:{SECRET}@far:{SECRET}": "cannot be read",
    f"redis://:{SECRET}@far:1?max_connections={SECRET}": "cannot be read",
    f"redis://:{SECRET}@far:1?colour=blue": "cannot be read",
    # What a password does that is not percent-encoded.
    f"redis://:{SECRET}/x@far:1": "cannot be read",
    f"redis://:{SECRET}\N{ACCOUNT OF}x@far:1": "cannot be read",
    f"redis://:[{SECRET}@far:1": "cannot be read",
    f"redis+sentinel://user:1/x/{SECRET}@far:1/scores": "cannot be read",
    f"redis+sentinel://user:{SECRET}/x@far:1/scores": "percent-encoded",
}


@pytest.mark.parametrize(("url", "complaint"), UNUSABLE.items())
def test_a_url_that_cannot_be_used_is_refused_and_not_quoted(url: str, complaint: str) -> None:
    with pytest.raises(RedisURLError, match=complaint) as refused:
        connect(url, timeout=1)
    text = "".join(traceback.format_exception(refused.value))
    assert SECRET not in text
    assert "far" not in text


async def shares_scores(url: str) -> None:
    """Asserts that a second replica finds what a first one wrote, and that both close their connections."""
    async with caching(url) as first, caching(url) as second:
        await first.well()
        await second.well()
        first.put(SCORES)
        await first.stored()
        assert await second.get(KEYS) == SCORES
        assert first.errors == second.errors == {}


def connections_of(server: RedisServer) -> int:
    """Counts the connections of clients, without the one that asks and those of replicas and sentinels."""
    return len(server.command("CLIENT", "LIST", "TYPE", "normal").splitlines()) - 1


def test_a_database_is_chosen_by_its_number(server: RedisServer) -> None:
    asyncio.run(shares_scores(f"{server.url}/3"))
    assert server.command("INFO", "keyspace").keys() == {"db3"}
    wait_until(lambda: connections_of(server) == 0, "a connection was left")


def test_a_user_and_a_password_are_percent_decoded(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "a@b", "on", f">{ODD}", "~*", "+@all")
    server.command("ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    asyncio.run(shares_scores(f"redis://{quote('a@b', safe='')}:{quote(ODD, safe='')}@{HOST}:{server.port}"))


def test_a_server_may_listen_on_a_socket_of_the_file_system(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    start("--unixsocket", str(path))
    asyncio.run(shares_scores(f"unix://{path}"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for this machine; its key is in the same directory."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=scores", "-addext", f"subjectAltName=IP:{HOST}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    new = ["openssl", "req", "-x509", "-days", "2", *key, *subject]
    command = [*new, "-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    return path


def tls(certificate: Path, port: int) -> list[str]:
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate.with_name("key.pem"))]
    return ["--tls-port", str(port), *files, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]


class Encrypted(NamedTuple):
    """A server and the port at which it speaks TLS."""

    server: RedisServer
    port: int


@pytest.fixture
def encrypted(start: Start, certificate: Path) -> Encrypted:
    port = free_port()
    try:
        return Encrypted(start(*tls(certificate, port)), port)
    except DidNotStart as error:
        if "tls" in str(error).lower():
            pytest.skip("this server was built without TLS")
        raise


def test_tls_to_a_server_whose_authority_the_url_names(encrypted: Encrypted, certificate: Path) -> None:
    asyncio.run(shares_scores(f"rediss://{HOST}:{encrypted.port}?ssl_ca_certs={certificate}"))


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(encrypted: Encrypted, brief_start: None) -> None:
    async def scenario() -> None:
        async with caching(f"rediss://{HOST}:{encrypted.port}") as cache:
            cache.put(SCORES)
            assert await cache.get(KEYS) == {}
            await until(lambda: len(cache.errors) == 2)
            assert {kind for _, kind in cache.errors} == {"connection"}
        assert encrypted.server.command("DBSIZE") == 0

    asyncio.run(scenario())


def sentinel_of(
    port: int, start: Start, tmp_path: Path, *arguments: str, down_after: float = 2 * PATIENCE
) -> RedisServer:
    """Starts a sentinel that knows the master at that port as ``scores``.

    It calls the master down after ``down_after`` seconds without an answer: late, since a busy machine may delay one.
    """
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor scores {HOST} {port} 1\n"
        f"sentinel down-after-milliseconds scores {round(down_after * 1000)}\n"
        "sentinel failover-timeout scores 2000\n"
    )
    return start(*arguments, sentinel=configuration)


def test_the_master_is_the_one_that_the_sentinels_name(start: Start, tmp_path: Path) -> None:
    master = start()
    sentinel = sentinel_of(master.port, start, tmp_path)
    asyncio.run(shares_scores(f"redis+sentinel://{HOST}:{free_port()},{HOST}:{sentinel.port}/scores/2"))
    assert master.command("INFO", "keyspace").keys() == {"db2"}
    wait_until(lambda: connections_of(sentinel) == 0, "a connection was left")


def test_a_password_is_the_masters_and_not_the_sentinels(start: Start, tmp_path: Path) -> None:
    master = start("--requirepass", ODD, password=ODD)
    sentinel = sentinel_of(master.port, start, tmp_path)
    sentinel.command("SENTINEL", "SET", "scores", "auth-pass", ODD)
    asyncio.run(shares_scores(f"redis+sentinel://:{quote(ODD, safe='')}@{HOST}:{sentinel.port}/scores"))


def test_tls_reaches_the_sentinels_too(encrypted: Encrypted, start: Start, tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    sentinel_of(encrypted.port, start, tmp_path, *tls(certificate, port), "--tls-replication", "yes")
    asyncio.run(shares_scores(f"rediss+sentinel://{HOST}:{port}/scores?ssl_ca_certs={certificate}"))


def test_a_new_master_is_followed(start: Start, tmp_path: Path) -> None:
    async def scenario() -> None:
        master = start("--repl-diskless-sync-delay", "0")
        replica = start("--replicaof", f"{HOST} {master.port}")
        await until(lambda: master.command("INFO", "replication")["connected_slaves"] == 1)
        sentinel = sentinel_of(master.port, start, tmp_path, down_after=0.2)
        async with caching(f"redis+sentinel://{HOST}:{sentinel.port}/scores") as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.stored()
            await until(lambda: replica.command("EXISTS", *KEYS) == len(KEYS))
            master.kill()
            cache.put({b"test:later": 6.0})
            await cache.finds(SCORES | {b"test:later": 6.0})

    asyncio.run(scenario())
