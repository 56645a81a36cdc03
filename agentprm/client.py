"""The clients of the service: ``Client`` blocks, ``AsyncClient`` is awaited, and nothing else differs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Self

import httpx

from agentprm import calls, wire
from agentprm.calls import Candidates, Chat, R, RankLike, TrajectoryLike
from agentprm.errors import ConnectionFailed, NotReady, UnexpectedReply
from agentprm.exchange import FAILURES, PROBE, Exchange, Patience, authorization, checked_url, means_not_ready
from agentprm.types import State

# Every connection may be kept: opening one costs more than a cached score.
_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=100)


class Client:
    """A blocking client; threads may share it.

    A trajectory is an ``agentprm.Trajectory``, an OpenAI chat (a list of message dicts ending in the assistant's) or
    a ``wire.TrajectoryItem``. Every call takes ``deadline_ms``, the milliseconds that its scores are worth waiting
    for, retries included: the service drops work that cannot make it. ``request_id`` appears in the service's log.

    Overload (429), unreadiness (503) and lost connections are tried again after ``Retry-After`` or with exponential
    backoff, as long as the deadline allows; nothing else is.

    Every call raises:
        RequestError: what the service answered instead of scores, of the service's own class (``Overloaded``, ...).
            ``InvalidRequest`` is raised before anything is sent where the contract alone shows the mistake.
        ConnectionFailed: no whole reply arrived.
        UnexpectedReply: something that is not this service answered.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``timeout`` is the seconds to wait for a reply, ``max_retries`` the attempts after the first.

        Without ``model`` the service takes its default; ``sleep`` takes seconds.

        Raises:
            ValueError: a ``base_url`` or an ``api_key`` that cannot be used.
        """
        self._model = model
        self._patience = Patience(timeout, max_retries)
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=checked_url(base_url),
            headers=authorization(api_key),
            limits=_LIMITS,
            transport=transport,
        )

    def score(
        self, trajectory: TrajectoryLike, *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.StepResult:
        """Promise and progress of the last step."""
        return self.score_step([trajectory], deadline_ms=deadline_ms, request_id=request_id).results[0]

    def rank(
        self,
        state: State | Chat,
        candidates: Candidates,
        *,
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankResult:
        """The candidates, best promise first; ``index`` is a candidate's place in ``candidates``.

        With a ``Sample`` instead of candidates the service samples them, and each one's ``action`` has its text.
        """
        return self.rank_actions([(state, candidates)], deadline_ms=deadline_ms, request_id=request_id).results[0]

    def score_step(
        self, items: Iterable[TrajectoryLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.ScoreStepReply:
        """Promise and progress of the last step of each trajectory."""
        call = calls.score_step(items, self._model)
        return self._run(Exchange(call, self._patience, deadline_ms, request_id))

    def score_trajectory(
        self, items: Iterable[TrajectoryLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.ScoreTrajectoryReply:
        """Promise and progress of every step of each trajectory."""
        call = calls.score_trajectory(items, self._model)
        return self._run(Exchange(call, self._patience, deadline_ms, request_id))

    def rank_actions(
        self, items: Iterable[RankLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.RankActionsReply:
        """The candidates, given or to be sampled, of each ``(state, candidates)`` or ``wire.RankItem``, best first."""
        call = calls.rank_actions(items, self._model)
        return self._run(Exchange(call, self._patience, deadline_ms, request_id))

    def models(self) -> wire.ModelsReply:
        """The loaded models, the default first, with their limits."""
        return self._run(Exchange(calls.MODELS, self._patience))

    def ready(self) -> bool:
        """Whether a request sent now would be scored; asks once and waits 5 seconds at most."""
        try:
            self._run(Exchange(calls.READY, PROBE))
        except (ConnectionFailed, NotReady, UnexpectedReply) as error:
            if not means_not_ready(error):
                raise
            return False
        return True

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, exchange: Exchange[R]) -> R:
        while True:
            try:
                return exchange.read(self._http.send(exchange.request(self._http)))
            except FAILURES as error:
                pause = exchange.pause_after(error)
            self._sleep(pause)


class AsyncClient:
    """``Client``, awaited; one per event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """See ``Client``."""
        self._model = model
        self._patience = Patience(timeout, max_retries)
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=checked_url(base_url),
            headers=authorization(api_key),
            limits=_LIMITS,
            transport=transport,
        )

    async def score(
        self, trajectory: TrajectoryLike, *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.StepResult:
        """Promise and progress of the last step."""
        reply = await self.score_step([trajectory], deadline_ms=deadline_ms, request_id=request_id)
        return reply.results[0]

    async def rank(
        self,
        state: State | Chat,
        candidates: Candidates,
        *,
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankResult:
        """The candidates, best promise first; ``index`` is a candidate's place in ``candidates``.

        With a ``Sample`` instead of candidates the service samples them, and each one's ``action`` has its text.
        """
        reply = await self.rank_actions([(state, candidates)], deadline_ms=deadline_ms, request_id=request_id)
        return reply.results[0]

    async def score_step(
        self, items: Iterable[TrajectoryLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.ScoreStepReply:
        """Promise and progress of the last step of each trajectory."""
        call = calls.score_step(items, self._model)
        return await self._run(Exchange(call, self._patience, deadline_ms, request_id))

    async def score_trajectory(
        self, items: Iterable[TrajectoryLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.ScoreTrajectoryReply:
        """Promise and progress of every step of each trajectory."""
        call = calls.score_trajectory(items, self._model)
        return await self._run(Exchange(call, self._patience, deadline_ms, request_id))

    async def rank_actions(
        self, items: Iterable[RankLike], *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.RankActionsReply:
        """The candidates, given or to be sampled, of each ``(state, candidates)`` or ``wire.RankItem``, best first."""
        call = calls.rank_actions(items, self._model)
        return await self._run(Exchange(call, self._patience, deadline_ms, request_id))

    async def models(self) -> wire.ModelsReply:
        """The loaded models, the default first, with their limits."""
        return await self._run(Exchange(calls.MODELS, self._patience))

    async def ready(self) -> bool:
        """Whether a request sent now would be scored; asks once and waits 5 seconds at most."""
        try:
            await self._run(Exchange(calls.READY, PROBE))
        except (ConnectionFailed, NotReady, UnexpectedReply) as error:
            if not means_not_ready(error):
                raise
            return False
        return True

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, exchange: Exchange[R]) -> R:
        while True:
            try:
                return exchange.read(await self._http.send(exchange.request(self._http)))
            except FAILURES as error:
                pause = exchange.pause_after(error)
            await self._sleep(pause)
