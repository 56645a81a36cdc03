import asyncio

import pytest

from agentprm.errors import TooSlow
from service.http.loop_turns import LoopTurns
from service.http.middleware.asgi import Message, Receive, Scope, Send
from service.http.middleware.body import BufferedBody
from tests.service.echo_app import PATIENCE

SCOPE: Scope = {"type": "http", "method": "POST", "path": "/score_step", "headers": []}


def client(*messages: Message) -> Receive:
    """Returns a ``receive`` that sends these messages, then nothing more."""
    unsent = list(messages)

    async def receive() -> Message:
        if unsent:
            return unsent.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    return receive


async def deaf(_: Message) -> None:
    """A ``send`` that ignores the reply."""


def test_work_for_a_client_that_left_is_cancelled() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["body"].decode())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def scenario() -> None:
        leaving = client({"type": "http.request", "body": b"all"}, {"type": "http.disconnect"})
        serving = asyncio.create_task(
            BufferedBody(app, paths=["/score_step"], max_bytes=3, turns=LoopTurns(0))(SCOPE, leaving, deaf)
        )
        done, _ = await asyncio.wait({serving}, timeout=PATIENCE)
        assert done
        serving.result()

    asyncio.run(scenario())
    assert seen == ["all", "cancelled"]


def test_a_client_that_leaves_within_its_body_starts_no_work() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def scenario() -> None:
        leaving = client({"type": "http.request", "body": b"ha", "more_body": True}, {"type": "http.disconnect"})
        await BufferedBody(app, paths=["/score_step"], max_bytes=3, turns=LoopTurns(0))(SCOPE, leaving, deaf)

    asyncio.run(scenario())


def test_a_cancellation_from_outside_is_passed_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    async def scenario() -> bool:
        staying = client({"type": "http.request", "body": b""})
        task = asyncio.create_task(
            BufferedBody(app, paths=["/score_step"], max_bytes=3, turns=LoopTurns(0))(SCOPE, staying, deaf)
        )
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(scenario())


def test_a_body_that_does_not_come_ends_its_request() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def scenario() -> None:
        stalled = client({"type": "http.request", "body": b"ha", "more_body": True})
        with pytest.raises(TooSlow, match=r"within 0\.01 s"):
            await BufferedBody(app, paths=["/score_step"], max_bytes=3, turns=LoopTurns(0), seconds=0.01)(
                SCOPE, stalled, deaf
            )

    asyncio.run(scenario())
