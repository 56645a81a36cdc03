"""The routes: validated bodies in, scores out. Knows HTTP and the wire bodies, and no tokens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Body, Depends, Header, Request, Response

from agentprm import wire
from agentprm.errors import (
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    RequestError,
    TooLong,
    Unauthorized,
)
from agentprm.messages import to_state, to_trajectory
from agentprm.types import State, StepScore, Trajectory, Usage
from service import examples
from service.fair_queue import Priority
from service.models import Models, ServedModel
from service.scores import ItemRanking, ItemScores, Terms, Timings

PROBE_ROUTES: Final = ("/health", "/ready", "/metrics")
SCORE_ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ROUTES: Final = (*SCORE_ROUTES, "/models", *PROBE_ROUTES)

Item = TypeVar("Item", wire.TrajectoryItem, wire.RankItem)
ScoresReply = wire.ScoreStepReply | wire.ScoreTrajectoryReply | wire.RankActionsReply
T = TypeVar("T")

Deadline = Annotated[
    wire.Milliseconds | wire.Unsent,
    Header(alias="x-deadline-ms", description="Milliseconds the caller will wait; later the answer is 504."),
]


def _terms(default: Priority) -> Callable[..., Awaitable[Terms]]:
    async def terms(
        request: Request,
        x_deadline_ms: Deadline = None,
        x_priority: Annotated[
            Priority, Header(description="`interactive` is computed before `bulk`; neither starves.")
        ] = default,
    ) -> Terms:
        address = request.client.host if request.client else ""
        now = asyncio.get_running_loop().time()
        return Terms(getattr(request.state, "key", address), x_priority, now).within(x_deadline_ms)

    return terms


Interactive = Annotated[Terms, Depends(_terms(Priority.INTERACTIVE))]
Bulk = Annotated[Terms, Depends(_terms(Priority.BULK))]
ScoreBody = Annotated[wire.ScoreRequest, Body(openapi_examples=examples.SCORE_REQUESTS)]
RankBody = Annotated[wire.RankRequest, Body(openapi_examples=examples.RANK_REQUESTS)]


@dataclass(frozen=True, slots=True)
class Probes:
    """What operators ask: why it is broken or not ready, None while it is not; and the text of ``/metrics``."""

    why_broken: Callable[[], str | None]
    why_not_ready: Callable[[], str | None]
    exposition: Callable[[], bytes]


def build_router(models: Models, probes: Probes, *, max_items: int, max_candidates: int) -> APIRouter:
    router = APIRouter()
    _add_score_routes(router, models, max_items, max_candidates)
    _add_probe_routes(router, models, probes)
    return router


def _add_score_routes(router: APIRouter, models: Models, max_items: int, max_candidates: int) -> None:
    @router.post("/score_step", tags=["scores"], **_documented(wire.ScoreStepReply, examples.STEP_REPLY))
    async def score_step(request: Request, body: ScoreBody, terms: Interactive) -> Response:
        """Promise and progress of the last step of each trajectory."""
        with _leased(request, models, body.model) as model:
            trajectories = _convert(body.items, _trajectory, max_items)
            scores = await model.scorer.score_steps(trajectories, terms.within(body.deadline_ms))
            results = [_step_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return _reply(request, wire.ScoreStepReply(model=model.identity, results=results), scores.timings)

    @router.post(
        "/score_trajectory", tags=["scores"], **_documented(wire.ScoreTrajectoryReply, examples.TRAJECTORY_REPLY)
    )
    async def score_trajectory(request: Request, body: ScoreBody, terms: Bulk) -> Response:
        """Promise and progress of every step of each trajectory, in one pass."""
        with _leased(request, models, body.model) as model:
            trajectories = _convert(body.items, _trajectory, max_items)
            scores = await model.scorer.score_trajectories(trajectories, terms.within(body.deadline_ms))
            results = [_trajectory_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return _reply(request, wire.ScoreTrajectoryReply(model=model.identity, results=results), scores.timings)

    @router.post("/rank_actions", tags=["scores"], **_documented(wire.RankActionsReply, examples.RANK_REPLY))
    async def rank_actions(request: Request, body: RankBody, terms: Interactive) -> Response:
        """The candidates of each state, best promise first."""
        with _leased(request, models, body.model) as model:
            _refuse_many_candidates(body.items, max_candidates)
            proposals = _convert(body.items, _proposal, max_items)
            states, candidates = [state for state, _ in proposals], [actions for _, actions in proposals]
            rankings = await model.scorer.rank(states, candidates, terms.within(body.deadline_ms))
            results = [_rank_result(item.id, one) for item, one in zip(body.items, rankings.items, strict=True)]
            return _reply(request, wire.RankActionsReply(model=model.identity, results=results), rankings.timings)


def _add_probe_routes(router: APIRouter, models: Models, probes: Probes) -> None:
    @router.get("/models", tags=["service"])
    async def list_models() -> wire.ModelsReply:
        """The loaded models, the default first, with their limits and how they were trained and evaluated."""
        return tell_models(models)

    @router.get("/health", tags=["service"], responses=documented_errors(NotReady))
    async def health() -> dict[str, str]:
        """The process lives. 503 only where nothing but a new process helps: its device is lost."""
        if (reason := probes.why_broken()) is not None:
            raise NotReady(reason)
        return {"status": "ok"}

    @router.get("/ready", tags=["service"], responses=documented_errors(NotReady))
    async def ready() -> dict[str, str]:
        """A request sent now would be scored: warmed up, every batcher alive, not draining."""
        if (reason := probes.why_not_ready()) is not None:
            raise NotReady(reason, retry_after=1)
        return {"status": "ready"}

    @router.get("/metrics", tags=["service"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(probes.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


@contextmanager
def _leased(request: Request, models: Models, reference: str | None) -> Iterator[ServedModel]:
    """The model that is asked for, until the block ends; from here on log and metrics name it."""
    with models.find(reference).leased() as model:
        request.state.model = model.reference
        yield model


def tell_models(models: Models) -> wire.ModelsReply:
    return wire.ModelsReply(models=[model.info for model in models.all])


def _documented(reply: type[wire.Body], example: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI page says about a score route; replies are serialised once, by ``_reply``."""
    errors = documented_errors(
        Unauthorized,
        Forbidden,
        InvalidRequest,
        TooLong,
        ModelNotFound,
        Overloaded,
        NotReady,
        DeadlineExceeded,
        InternalError,
    )
    return {
        "response_model": reply,
        "responses": {200: {"content": {"application/json": {"example": example}}}, **errors},
    }


def documented_errors(*kinds: type[RequestError]) -> dict[int | str, dict[str, Any]]:
    return {kind.status: {"model": wire.ErrorReply, "description": f"`{kind.code}`"} for kind in kinds}


def _convert(items: Sequence[Item], convert: Callable[[Item], T], max_items: int) -> list[T]:
    """Each item as what the scorer takes; an error tells which item is wrong."""
    if len(items) > max_items:
        raise TooLong(
            f"{len(items)} items in one request, {max_items} are allowed",
            details={"items": len(items), "limit": max_items},
        )
    converted = []
    for index, item in enumerate(items):
        try:
            converted.append(convert(item))
        except InvalidRequest as error:
            raise InvalidRequest(error.message, details={"item": index, **error.details}) from error
        except RecursionError as error:
            raise InvalidRequest("the arguments of a tool call nest too deeply", details={"item": index}) from error
    return converted


def _trajectory(item: wire.TrajectoryItem) -> Trajectory:
    trajectory = to_trajectory(item)
    _refuse_surrogates(step.action for step in trajectory.steps)
    return trajectory


def _proposal(item: wire.RankItem) -> tuple[State, list[str]]:
    state, candidates = to_state(item)
    _refuse_surrogates([*(step.action for step in state.steps), *candidates])
    return state, candidates


def _refuse_surrogates(actions: Iterable[str]) -> None:
    """The arguments of a tool call are JSON in a text: an escape in them can hide half a character."""
    try:
        "".join(actions).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the arguments of a tool call hold a lone surrogate, which is no character") from None


def _refuse_many_candidates(items: Sequence[wire.RankItem], limit: int) -> None:
    for index, item in enumerate(items):
        if len(item.candidates) > limit:
            raise TooLong(
                f"{len(item.candidates)} candidates in one item, {limit} are allowed",
                details={"item": index, "candidates": len(item.candidates), "limit": limit},
            )


def _reply(request: Request, body: ScoresReply, timings: Timings) -> Response:
    """The answer, and what the log is to say of it."""
    milliseconds = {stage: round(seconds * 1000, 3) for stage, seconds in timings._asdict().items()}
    usages = [result.usage for result in body.results]
    request.state.scored = {
        "items": len(usages),
        **{name: sum(getattr(usage, name) for usage in usages) for name in wire.UsageBody.model_fields},
        **{f"{stage}_ms": taken for stage, taken in milliseconds.items()},
    }
    stages = ", ".join(f"{stage};dur={taken:.3f}" for stage, taken in milliseconds.items())
    return Response(body.model_dump_json(), media_type="application/json", headers={"server-timing": stages})


def _step_result(item_id: str | None, item: ItemScores) -> wire.StepResult:
    return wire.StepResult(id=item_id, usage=_usage(item.usage), **_fields(item.steps[-1]))


def _trajectory_result(item_id: str | None, item: ItemScores) -> wire.TrajectoryResult:
    steps = [wire.ScoreBody(**_fields(step)) for step in item.steps]
    return wire.TrajectoryResult(id=item_id, steps=steps, usage=_usage(item.usage))


def _rank_result(item_id: str | None, item: ItemRanking) -> wire.RankResult:
    ranking = [
        wire.RankedCandidate(index=action.index, rank=rank, **_fields(action.score))
        for rank, action in enumerate(item.ranking)
    ]
    return wire.RankResult(id=item_id, ranking=ranking, usage=_usage(item.usage))


def _usage(usage: Usage) -> wire.UsageBody:
    return wire.UsageBody(
        tokens=usage.tokens,
        computed=usage.computed,
        prefix_cache=usage.prefix_cache,
        score_cache=usage.score_cache,
    )


def _fields(score: StepScore) -> dict[str, Any]:
    """Not ``dataclasses.asdict``: it copies deeply, which is a tenth of what an answer from the score cache costs."""
    return {"promise": score.promise, "progress": score.progress, "raw": score.raw}
