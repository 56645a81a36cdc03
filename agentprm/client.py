"""The blocking client of the service."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self, overload

from agentprm import calls, wire
from agentprm.address import address
from agentprm.aggregate import Aggregate
from agentprm.calls import Defaults, R
from agentprm.connections import Connections
from agentprm.errors import ConnectionFailed, NotReady, UnexpectedReply
from agentprm.exchange import FAILURES, CallPolicy, Exchange, means_not_ready
from agentprm.items import Candidates, Chat, RankLike, TrajectoryLike
from agentprm.outcomes import Outcomes
from agentprm.transports import Transport
from agentprm.types import Overflow, State


class Client:
    """A blocking client; threads may share it, and forked processes: each has connections of its own.

    A trajectory is an ``agentprm.Trajectory``, an OpenAI chat (a list of message dicts ending in the assistant's) or
    a ``wire.TrajectoryItem``. Replies hold one result per item, in the order of the items.

    At most 100 calls are under way; further ones wait for a place. ``deadline_ms`` is the milliseconds that a call may
    take, with this wait and all retries; the service drops work that cannot meet it. ``request_id`` appears in the
    service's log.

    With ``on_error="item"`` an item that cannot be scored does not fail the call: ``results`` then holds the error of
    that item in its place, as an object of the class that the call would raise. A call raises what concerns all items.

    A call is tried again after overload (429), unreadiness (503) or a lost connection, as long as the deadline allows.
    It waits for ``Retry-After``, or with exponential backoff if the reply names none. Other errors are final.

    Every call raises:
        RequestError: the service answered with an error; the class follows its code (``Overloaded``, ...).
            ``InvalidRequest`` is raised before anything is sent if the arguments break the contract, and
            ``DeadlineExceeded`` once the deadline has passed.
        ClientClosed: the client was closed, or its transport belongs to another process or event loop.
        ConnectionFailed: no whole reply arrived.
        UnexpectedReply: the reply breaks the contract or belongs to another request; usually another server answered.
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
        transport: Transport = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Opens no connection.

        Args:
            base_url: ``http://`` or ``https://``, host, and a path if the service has one.
            model: name, ``name@version`` or alias; the service's default without it.
            overflow: what becomes of a history that is too long, unless an item says it: ``error``, ``drop_oldest`` or
                ``shorten_observations``.
            api_key: sent as a bearer token.
            timeout: seconds to wait for a reply, once the call has its place.
            max_retries: attempts after the first.
            transport: of httpx, or a function that makes one for each connection; forked processes need the function.
            sleep: takes the seconds between two attempts.

        Raises:
            ValueError: an argument, or a proxy of the environment, that cannot be used.
        """
        self._defaults = Defaults(model, overflow)
        service = address(base_url, api_key, through_proxy=transport is None)
        self._policy = CallPolicy(timeout, max_retries, service.proxy_place)
        self._sleep = sleep
        self._connections = Connections(service, transport)

    def score(
        self, trajectory: TrajectoryLike, *, deadline_ms: float | None = None, request_id: str | None = None
    ) -> wire.StepResult:
        """Promise in [0, 1], progress and raw score of the last step."""
        return self.score_step([trajectory], deadline_ms=deadline_ms, request_id=request_id).results[0]

    def rank(
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
        return self.rank_actions([(state, candidates)], deadline_ms=deadline_ms, request_id=request_id).results[0]

    @overload
    def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreStepReply: ...
    @overload
    def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.StepResult]: ...
    def score_step(
        self,
        items: Iterable[TrajectoryLike],
        *,
        on_error: wire.OnError = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreStepReply | Outcomes[wire.StepResult]:
        """Promise, progress and raw score of the last step of each trajectory."""
        call = calls.score_step(items, self._defaults, on_error)
        return self._run(Exchange(call, self._policy, deadline_ms, request_id))

    @overload
    def score_trajectory(
        self,
        items: Iterable[TrajectoryLike],
        *,
        aggregate: Aggregate | None = None,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.ScoreTrajectoryReply: ...
    @overload
    def score_trajectory(
        self,
        items: Iterable[TrajectoryLike],
        *,
        aggregate: Aggregate | None = None,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.TrajectoryResult]: ...
    def score_trajectory(
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
        return self._run(Exchange(call, self._policy, deadline_ms, request_id))

    @overload
    def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: Literal["request"] = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankActionsReply: ...
    @overload
    def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: Literal["item"],
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> Outcomes[wire.RankResult]: ...
    def rank_actions(
        self,
        items: Iterable[RankLike],
        *,
        on_error: wire.OnError = "request",
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> wire.RankActionsReply | Outcomes[wire.RankResult]:
        """Ranks the candidates of each ``(state, candidates)`` or ``wire.RankItem``; ``results`` are in item order."""
        call = calls.rank_actions(items, self._defaults, on_error)
        return self._run(Exchange(call, self._policy, deadline_ms, request_id))

    def report_outcome(
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
        return self._run(Exchange(call, self._policy, deadline_ms, request_id))

    def models(self) -> wire.ModelsReply:
        """The loaded models, the default first, with their limits."""
        return self._run(Exchange(calls.MODELS, self._policy))

    def ready(self) -> bool:
        """Returns whether a request sent now would be scored; asks once and waits 5 seconds at most.

        Raises:
            AgentPRMError: an answer that does not tell, such as that of another server.
        """
        try:
            self._attempts(Exchange(calls.READY, self._policy.of_probe()))
        except (ConnectionFailed, NotReady, UnexpectedReply) as error:
            if not means_not_ready(error):
                raise
            return False
        return True

    def close(self) -> None:
        """Closes the connections; those of calls under way once they are answered. Later calls raise ClientClosed."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, exchange: Exchange[R]) -> R:
        # The place is held during pauses: calls that were refused make room for no further ones.
        with self._connections.place(exchange.remaining):
            return self._attempts(exchange)

    def _attempts(self, exchange: Exchange[R]) -> R:
        while True:
            try:
                with self._connections.connection() as connection:
                    response = connection.http.send(exchange.request(connection.http))
                    connection.note_socket(response)
                    return exchange.read(response)
            except FAILURES as error:
                pause = exchange.pause_after(error)
            self._sleep(pause)
