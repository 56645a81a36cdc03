"""The circuit breaker alone, over a probe that follows a script."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.redis_client import breaker
from service.redis_client.breaker import LONGEST_PAUSE, CircuitBreaker, State
from testbed.processes import PATIENCE
from tests.service.score_cache.caching import tasks_of, until

SICK = OSError("no route to host")


class Probe:
    """A probe whose calls wait for their outcome: an error, or None for success."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.calls = 0
        self._outcomes: asyncio.Queue[Exception | None] = asyncio.Queue()
        for outcome in outcomes:
            self.ends(outcome)

    def ends(self, outcome: Exception | None) -> None:
        self._outcomes.put_nowait(outcome)

    async def __call__(self) -> None:
        self.calls += 1
        if (outcome := await self._outcomes.get()) is not None:
            raise outcome


@asynccontextmanager
async def started(probe: Probe, *, failures: int = 3, patience: float = PATIENCE) -> AsyncIterator[CircuitBreaker]:
    guard = CircuitBreaker("asking the oracle", probe, failures=failures, pause=0.001)
    try:
        await guard.start(patience)
        yield guard
    finally:
        await guard.stop()


def state(guard: CircuitBreaker) -> State:
    """Returns the state. A call keeps the type checker from assuming that an attribute stays as last compared."""
    return guard.state


def fail(guard: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        guard.record_failure()


def test_it_is_open_until_a_first_probe_is_well() -> None:
    async def scenario() -> None:
        probe = Probe()
        guard = CircuitBreaker("oracle", probe)
        assert state(guard) is State.OPEN
        starting = asyncio.create_task(guard.start(PATIENCE))
        await until(lambda: probe.calls == 1)
        assert state(guard) is State.HALF_OPEN
        assert state(guard) is not State.CLOSED
        assert not starting.done()
        probe.ends(None)
        await starting
        assert state(guard) is State.CLOSED
        await guard.stop()

    asyncio.run(scenario())


def test_starting_waits_no_longer_than_its_patience_and_the_probe_goes_on() -> None:
    async def scenario() -> None:
        probe = Probe()
        async with asyncio.timeout(PATIENCE), started(probe, patience=0.001) as guard:
            assert state(guard) is not State.CLOSED
            probe.ends(None)
            await guard.wait_until_closed()
            assert state(guard) is State.CLOSED
            assert probe.calls == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("failures", [1, 3])
def test_so_many_failures_in_a_row_open_it_and_fewer_do_not(failures: int) -> None:
    async def scenario() -> None:
        async with started(Probe(None), failures=failures) as guard:
            for _ in range(3):
                fail(guard, failures - 1)
                assert state(guard) is State.CLOSED
                guard.record_success()
            fail(guard, failures)
            assert state(guard) is State.OPEN

    asyncio.run(scenario())


def test_it_probes_until_a_probe_is_well_and_closes_then() -> None:
    async def scenario() -> None:
        probe = Probe(None)
        async with started(probe) as guard:
            fail(guard, 3)
            for sick in range(3):
                await until(lambda sick=sick: probe.calls == 2 + sick)  # type: ignore[misc]
                assert state(guard) is State.HALF_OPEN
                probe.ends(SICK)
            await until(lambda: probe.calls == 5)
            closed = asyncio.create_task(guard.wait_until_closed())
            await asyncio.sleep(0)
            assert not closed.done()
            probe.ends(None)
            await closed
            assert state(guard) is State.CLOSED

    asyncio.run(scenario())


def test_between_two_probes_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        states: list[State] = []
        sleep = asyncio.sleep

        async def looking(seconds: float) -> None:
            states.append(state(guard))
            await sleep(0)

        probe = Probe(SICK, SICK, None)
        guard = CircuitBreaker("oracle", probe)
        monkeypatch.setattr(asyncio, "sleep", looking)
        await guard.start(PATIENCE)
        await guard.stop()
        assert states == [State.OPEN] * 3

    asyncio.run(scenario())


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def noting(seconds: float) -> None:
            pauses.append(seconds)
            await sleep(0)

        guard = CircuitBreaker("oracle", Probe(*[SICK] * 7, None, *[SICK] * 2, None), pause=0.25)
        monkeypatch.setattr(asyncio, "sleep", noting)
        await guard.start(PATIENCE)
        assert pauses == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]
        pauses.clear()
        fail(guard, 3)
        await guard.wait_until_closed()
        assert pauses == [0.25, 0.5, 1.0]
        await guard.stop()

    asyncio.run(scenario())


def test_failures_while_it_is_open_start_no_second_probe_and_are_forgotten_when_it_closes() -> None:
    async def scenario() -> None:
        probe = Probe(None)
        async with started(probe) as guard:
            fail(guard, 50)
            await until(lambda: probe.calls == 2)
            fail(guard, 50)
            assert len(tasks_of("CircuitBreaker._recover")) == 1
            probe.ends(None)
            await guard.wait_until_closed()
            fail(guard, 2)
            assert state(guard) is State.CLOSED
            assert probe.calls == 2

    asyncio.run(scenario())


def test_stopping_ends_the_probe_that_runs_and_keeps_it_open() -> None:
    async def scenario() -> None:
        probe = Probe(None)
        async with started(probe) as guard:
            fail(guard, 3)
            await until(lambda: probe.calls == 2)
            assert tasks_of("CircuitBreaker._recover")
        assert not tasks_of("CircuitBreaker._recover")
        fail(guard, 3)
        assert state(guard) is State.OPEN
        assert not tasks_of("CircuitBreaker._recover")

    asyncio.run(scenario())


def test_stopping_ends_a_probe_that_raises_another_error_when_it_is_cancelled() -> None:
    async def scenario() -> None:
        async def probe() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise SICK from None

        guard = CircuitBreaker("oracle", probe, pause=0.001)
        await guard.start(0.001)
        async with asyncio.timeout(PATIENCE):
            await guard.stop()
        assert state(guard) is State.OPEN
        assert not tasks_of("CircuitBreaker._recover")

    asyncio.run(scenario())


def test_one_that_is_closed_opens_when_it_is_stopped() -> None:
    async def scenario() -> None:
        async with started(Probe(None)) as guard:
            waiting = guard.wait_until_closed()
        assert state(guard) is State.OPEN
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await waiting

    asyncio.run(scenario())


def test_one_that_never_started_can_be_stopped() -> None:
    asyncio.run(CircuitBreaker("oracle", Probe()).stop())


def test_the_log_tells_when_it_gives_up_why_a_probe_failed_and_when_it_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with started(Probe(None, SICK, SICK, SICK, TimeoutError(), None)) as guard:
            fail(guard, 3)
            await guard.wait_until_closed()

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    messages = [record.getMessage() for record in caplog.records if record.name == breaker.__name__]
    assert messages[:2] == [
        "asking the oracle: given up until a probe is well",
        "asking the oracle: a probe failed: no route to host",
    ]
    assert messages[2].startswith("asking the oracle: well again after ")
    assert len(messages) == 3


def test_an_error_without_words_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with started(Probe(TimeoutError(), None)):
            pass

    asyncio.run(scenario())
    assert "a probe failed: TimeoutError" in caplog.text


def test_a_start_that_succeeds_at_once_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with started(Probe(None)):
            pass

    with caplog.at_level(logging.INFO, "service"):
        asyncio.run(scenario())
    assert not [record for record in caplog.records if record.name == breaker.__name__]
