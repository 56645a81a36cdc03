"""A Cluster of three masters, each with a third of the slots."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import quote

import pytest

from service.redis_client.connections import connect
from testbed.processes import HOST, wait_until
from testbed.redis import RedisServer, starting
from tests.service.score_cache.caching import caching, until

SCORES = {f"test:{index}".encode(): index / 7 for index in range(60)}
KEYS = list(SCORES)
PASSWORD = "p@ss:w/rd"


@pytest.fixture(scope="module")
def cluster(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    """Three masters, shared by the tests: a new master serves only after two seconds."""
    with starting(binary, tmp_path_factory.mktemp("cluster")) as start:
        nodes = [
            start(
                *("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{number}.conf"),
                *("--cluster-node-timeout", "1000"),
            )
            for number in range(3)
        ]
        for number, (node, (first, after)) in enumerate(zip(nodes, pairwise((0, 5461, 10923, 16384)), strict=True)):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            node.command("CLUSTER", "MEET", HOST, nodes[0].port)
        yield nodes


@pytest.fixture
def nodes(cluster: list[RedisServer]) -> list[RedisServer]:
    """Three masters that hold nothing."""
    wait_until(lambda: all(map(is_whole, cluster)), "the cluster did not form")
    for node in cluster:
        node.command("FLUSHALL")
    return cluster


def is_whole(node: RedisServer) -> bool:
    information = node.command("CLUSTER", "INFO").splitlines()
    return b"cluster_state:ok" in information and b"cluster_known_nodes:3" in information


def test_scores_are_spread_over_the_nodes_and_found_by_scanning_and_forgotten(nodes: list[RedisServer]) -> None:
    async def scenario() -> None:
        url = "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in nodes[:2])
        async with caching(url) as first, caching(url) as second:
            await first.well()
            await second.well()
            first.put(SCORES)
            await first.stored()
            assert await second.get(KEYS) == SCORES
            assert first.errors == second.errors == {}
        assert all(node.command("DBSIZE") > 5 for node in nodes)

        server = connect(url, timeout=1)
        found = {key async for key in server.scan(b"test:")}
        assert found == {*KEYS, b"test:probe"}
        assert await server.unlink(KEYS) == len(KEYS)
        assert await server.unlink(KEYS) == 0
        await server.close()

    asyncio.run(scenario())


def test_the_user_of_the_url_is_the_one_at_every_node(nodes: list[RedisServer]) -> None:
    async def scenario() -> None:
        for node in nodes:
            node.command("ACL", "SETUSER", "scorer", "on", f">{PASSWORD}", "~*", "+@all")
        async with caching(f"redis+cluster://scorer:{quote(PASSWORD, safe='')}@{HOST}:{nodes[0].port}") as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.finds(SCORES)
            assert cache.errors == {}
            assert all(b"user=scorer" in node.command("CLIENT", "LIST") for node in nodes)

    asyncio.run(scenario())


def test_a_node_that_dies_and_comes_back_costs_misses_and_is_used_again(nodes: list[RedisServer]) -> None:
    async def scenario() -> None:
        async with caching(f"redis+cluster://{HOST}:{nodes[0].port}") as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.stored()
            nodes[2].kill()
            found = await cache.get(KEYS)
            assert found.items() <= SCORES.items()
            await until(lambda: cache.errors)
            nodes[2].start()
            cache.put(SCORES)
            await cache.finds(SCORES)

    asyncio.run(scenario())


def test_a_slot_that_moves_to_another_node_is_followed(nodes: list[RedisServer]) -> None:
    async def scenario() -> None:
        key = KEYS[0]
        slot = nodes[0].command("CLUSTER", "KEYSLOT", key)
        owner = next(node for node in nodes if slot in range(*slots_of(node)))
        other = next(node for node in nodes if node is not owner)
        async with caching(f"redis+cluster://{HOST}:{nodes[0].port}") as cache:
            await cache.well()
            cache.put(SCORES)
            await cache.stored()
            move(slot, owner, other, nodes)
            assert owner.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
            assert await cache.get(KEYS) == SCORES
            cache.put({key: 7.0})
            await cache.stored()
            assert await cache.get([key]) == {key: 7.0}
            assert cache.errors == {}
        assert other.command("CLUSTER", "COUNTKEYSINSLOT", slot) >= 1

    asyncio.run(scenario())


def slots_of(node: RedisServer) -> tuple[int, int]:
    """Returns the first slot of a node, and the slot after its last."""
    mine = next(line for line in node.command("CLUSTER", "NODES").splitlines() if b"myself" in line)
    first, _, last = mine.split()[8].partition(b"-")
    return int(first), int(last) + 1


def move(slot: int, owner: RedisServer, other: RedisServer, nodes: list[RedisServer]) -> None:
    source, target = (node.command("CLUSTER", "MYID") for node in (owner, other))
    other.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
    owner.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
    for key in owner.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        owner.command("MIGRATE", HOST, other.port, key, 0, 5000)
    for node in (other, owner, *nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", target)
