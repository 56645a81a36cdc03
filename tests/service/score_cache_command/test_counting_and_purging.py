"""Counting and purging scores, against real servers: with a password, behind a Sentinel, in a Cluster."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from model_store.format.store import MANIFEST
from service.redis_client.connections import RedisServer
from service.score_cache.inspection import purge
from service.score_cache.keys import Key
from service.settings import CHECKPOINTS
from tests.service.score_cache_command.commands import (
    DEMO,
    GONE,
    ORM,
    Server,
    answer,
    command,
    fill,
    number_of_keys,
    process,
    report,
    score_keys,
)


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

    async def unlink(self, keys: Sequence[bytes]) -> int:
        before = len(self.left)
        self.left -= set(keys)
        return before - len(self.left)


def test_a_score_that_comes_twice_is_purged_once() -> None:
    seen = SeenTwice(score_keys("any", DEMO.digest, 700))
    assert asyncio.run(purge(seen, "any")) == {"cb20a72d987347fe": 700}
    assert not seen.left


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
