"""Clients in forked processes: parent and child never share a connection, and neither disturbs the other's."""

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentprm import AsyncClient, Client, ClientClosed, Step, Trajectory
from tests.agentprm.echo_service import PATIENCE, echo_service, raw_score

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with echo_service() as address:
        yield address


def to_score(action: str) -> Trajectory:
    return Trajectory("t", (Step("", action),))


def port_of(client: Client, action: str) -> float | None:
    """The port from which the service was called. Fails if the score is that of another action."""
    result = client.score(to_score(action))
    assert result.raw == raw_score(action)
    return result.progress


async def async_port_of(client: AsyncClient, action: str) -> float | None:
    result = await client.score(to_score(action))
    assert result.raw == raw_score(action)
    return result.progress


def in_child(task: Callable[[], Any]) -> Any:
    """Returns what ``task`` returns in a forked process."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: sender.send(task()))
    child.start()
    sender.close()
    try:
        assert receiver.poll(PATIENCE)
        return receiver.recv()
    finally:
        child.join(PATIENCE)


def test_a_child_has_connections_of_its_own_and_the_parent_keeps_its(url: str) -> None:
    with Client(url) as client:
        mine = port_of(client, "mine")

        def child() -> list[float | None]:
            ports = [port_of(client, "child's"), port_of(client, "child's again")]
            client.close()
            return ports

        first, again = in_child(child), in_child(child)
        assert first[0] == first[1] != mine
        assert again[0] == again[1] not in (mine, first[0])
        assert port_of(client, "mine again") == mine


def test_children_of_a_used_client_get_their_own_scores(url: str) -> None:
    with Client(url) as client:
        port_of(client, "mine")

        def child(number: int) -> int:
            return len([port_of(client, f"{number} {call}") for call in range(10)])

        with ThreadPoolExecutor(4) as threads:
            done = list(threads.map(lambda number: in_child(lambda: child(number)), range(4)))
    assert done == [10] * 4


def test_a_child_of_a_child_has_connections_of_its_own(url: str) -> None:
    with Client(url) as client:
        mine = port_of(client, "mine")
        ports = in_child(
            lambda: [
                port_of(client, "child's"),
                in_child(lambda: port_of(client, "grandchild's")),
                port_of(client, "x"),
            ]
        )
        assert ports[0] == ports[2]
        assert len({mine, *ports}) == 3


def test_a_fork_amid_calls_of_other_threads_disturbs_nobody(url: str) -> None:
    """All places are taken when the process forks, and locks may be held. The child has places of its own."""
    with Client(url) as client, ThreadPoolExecutor(101) as threads:
        held = [threads.submit(port_of, client, "hold fork") for _ in range(100)]
        port_of_waiting = threads.submit(port_of, client, "waiting")
        with Client(url) as other:
            port_of(other, "await held fork")
        theirs = in_child(lambda: [port_of(client, "child's"), port_of(client, "release fork")])
        mine = {future.result(PATIENCE) for future in held}
        assert mine.isdisjoint(theirs)
        assert port_of_waiting.result(PATIENCE) in mine


def test_a_child_does_not_keep_the_parents_connections_open(url: str) -> None:
    proceed = FORK.Event()
    with Client(url) as client, Client(url) as other:
        mine = port_of(client, "mine")
        child = FORK.Process(target=proceed.wait, args=(PATIENCE,))
        child.start()
        client.close()
        port_of(other, f"await close {mine:.0f}")
        assert child.is_alive()
    proceed.set()
    child.join(PATIENCE)


def test_a_child_of_a_running_event_loop_has_connections_of_its_own(url: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(url) as client:
            mine = await async_port_of(client, "mine")

            async def child() -> list[float | None]:
                ports = [await async_port_of(client, "child's"), await async_port_of(client, "child's again")]
                await client.close()
                return ports

            ports = in_child(lambda: asyncio.run(child()))
            assert ports[0] == ports[1] != mine
            assert await async_port_of(client, "mine again") == mine
            assert await asyncio.gather(*(async_port_of(client, f"{n}") for n in range(5)))

    asyncio.run(scenario())


def test_the_event_loop_of_the_parent_still_hears_replies_that_a_child_was_forked_in_between(url: str) -> None:
    """The child inherits the poll set of the loop. Whatever it does with the sockets, the parent's stay in it."""

    async def scenario() -> None:
        async with AsyncClient(url) as client, AsyncClient(url) as other:
            held = [asyncio.create_task(async_port_of(client, "hold inside")) for _ in range(5)]
            await async_port_of(other, "await held inside")
            in_child(lambda: asyncio.run(async_port_of(client, "release inside")))
            assert len(set(await asyncio.gather(*held))) == 5

    asyncio.run(scenario())


def test_with_a_function_that_makes_the_transport_a_child_makes_its_own(url: str) -> None:
    with Client(url, transport=httpx.HTTPTransport) as client:
        mine = port_of(client, "mine")
        assert in_child(lambda: port_of(client, "child's")) != mine
        assert port_of(client, "mine again") == mine


def test_a_transport_with_connections_of_the_parent_is_refused_in_a_child(url: str) -> None:
    def refusal(client: Client) -> str:
        with pytest.raises(ClientClosed) as caught:
            client.score(to_score("x"))
        return str(caught.value)

    with Client(url, transport=httpx.HTTPTransport()) as client:
        mine = port_of(client, "mine")
        assert "belongs to the process that made it" in in_child(lambda: refusal(client))
        assert port_of(client, "mine again") == mine


def test_many_forks_leave_no_descriptor_behind(url: str) -> None:
    """Each child starts with the descriptors of its parent and ends with no more than one connection of its own."""

    def sockets() -> int:
        opened = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(str(path.readlink()).startswith("socket:") for path in opened)

    def generation(client: Client, depth: int) -> list[int]:
        port_of(client, "x")
        return [sockets(), *(in_child(lambda: generation(client, depth - 1)) if depth else [])]

    with Client(url) as client:
        counted = generation(client, 4)
    assert max(counted) <= counted[0] + 1


def test_threads_of_a_child_may_use_the_client_at_once(url: str) -> None:
    with Client(url) as client:
        port_of(client, "mine")

        def child() -> int:
            with ThreadPoolExecutor(8) as threads:
                return len(set(threads.map(lambda _: port_of(client, "hold 8"), range(8))))

        assert in_child(child) == 8
