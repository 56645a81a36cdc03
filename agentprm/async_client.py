"""The client of the service for asynchronous code."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, Self, overload

from agentprm import calls, wire
from agentprm.address import address
from agentprm.aggregate import Aggregate
from agentprm.calls import Defaults, R
from agentprm.connections import AsyncConnections
from agentprm.errors import ConnectionFailed, NotReady, UnexpectedReply
from agentprm.exchange import FAILURES, CallPolicy, Exchange, means_not_ready
from agentprm.items import Candidates, Chat, RankLike, TrajectoryLike
from agentprm.outcomes import Outcomes
from agentprm.transports import AsyncTransport
from agentprm.types import Overflow, State


class AsyncClient:
    """The client for ``async`` code: the methods of ``Client``, awaited.

    Each event loop has connections of its own and closes them when it shuts down.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        overflow: Overflow = "error",
        api_key: str | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        transport: AsyncTransport = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Takes the arguments of ``Client``; ``sleep`` is awaited."""
        self._defaults = Defaults(model, overflow)
        service = address(base_url, api_key, through_proxy=transport is None)
        self._policy = CallPolicy(timeout, max_retries, service.proxy_place)
        self._sleep = sleep
        self._connections = AsyncConnections(service, transport)

    async def score(
        self, trajectory: TrajectoryLike, *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.StepResult:
        """Promise in [0, 1], progress and raw score of the last step."""
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
        """The candidates in ``ranking``, best promise first; ``index`` is a candidate's place in ``candidates``.

        With a ``Sample`` the service samples the candidates; ``action`` then holds the text of each.
        """
        reply = await self.rank_actions([(state, candidates)], deadline_ms=deadline_ms, request_id=request_id)
        return reply.results[0]

    @overload
    async def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreStepReply: ...
    @overload
    async def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.StepResult]: ...
    async def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: wire.OnError = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreStepReply | Outcomes[wire.StepResult]:
        """Promise, progress and raw score of the last step of each trajectory."""
        call = calls.score_step(items, self._defaults, on_error)
        return await self._run(Exchange(call, self._policy, deadline_ms, request_id))

    @overload
    async def score_trajectory(
        self,
        items: Iterable[TrajectoryLike],
        *,
        aggregate: Aggregate | None = None,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreTrajectoryReply: ...
    @overload
    async def score_trajectory(
        self,
        items: Iterable[TrajectoryLike],
        *,
        aggregate: Aggregate | None = None,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.TrajectoryResult]: ...
    async def score_trajectory(
        self,
        items: Iterable[TrajectoryLike],
        *,
        aggregate: Aggregate | None = None,
        on_error: wire.OnError = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreTrajectoryReply | Outcomes[wire.TrajectoryResult]:
        """Promise, progress and raw score of every step: ``results[i].steps[t]`` is step t of item i.

        With ``aggregate`` each result has that number of its promises too.
        """
        call = calls.score_trajectory(items, self._defaults, aggregate, on_error)
        return await self._run(Exchange(call, self._policy, deadline_ms, request_id))

    @overload
    async def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankActionsReply: ...
    @overload
    async def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.RankResult]: ...
    async def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: wire.OnError = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankActionsReply | Outcomes[wire.RankResult]:
        """Ranks the candidates of each ``(state, candidates)`` or ``wire.RankItem``; ``results`` are in item order."""
        call = calls.rank_actions(items, self._defaults, on_error)
        return await self._run(Exchange(call, self._policy, deadline_ms, request_id))

    async def report_outcome(
        self,
        trajectory_id: str,
        outcome: float | None = None,
        *,
        truncated: bool = False,
        query: str | None = None,
        action: str | Mapping[str, Any] | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.OutcomeReply:
        """Tells a service that records what became of a trajectory: its terminal reward, from 0 to 1.

        A ``truncated`` trajectory may lack it. ``query`` says which attempts belong together; ``action`` is the last
        action of an agent that only ranks, which no scored trajectory holds.
        """
        call = calls.report_outcome(trajectory_id, outcome, truncated=truncated, query=query, action=action)
        return await self._run(Exchange(call, self._policy, deadline_ms, request_id))

    async def models(self) -> wire.ModelsReply:
        """The loaded models, the default first, with their limits."""
        return await self._run(Exchange(calls.MODELS, self._policy))

    async def ready(self) -> bool:
        """Returns whether a request sent now would be scored; asks once and waits 5 seconds at most.

        Raises:
            AgentPRMError: an answer that does not tell, such as that of another server.
        """
        try:
            await self._attempts(Exchange(calls.READY, self._policy.of_probe()))
        except (ConnectionFailed, NotReady, UnexpectedReply) as error:
            if not means_not_ready(error):
                raise
            return False
        return True

    async def close(self) -> None:
        """Closes the connections; those of calls under way once they are answered. Later calls raise ClientClosed."""
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, exchange: Exchange[R]) -> R:
        # The place is held during pauses: calls that were refused make room for no further ones.
        async with self._connections.place(exchange.remaining):
            return await self._attempts(exchange)

    async def _attempts(self, exchange: Exchange[R]) -> R:
        while True:
            try:
                async with self._connections.connection() as connection:
                    response = await connection.http.send(exchange.request(connection.http))
                    connection.note_socket(response)
                    return exchange.read(response)
            except FAILURES as error:
                pause = exchange.pause_after(error)
            await self._sleep(pause)
