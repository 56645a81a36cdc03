"""The routes: validated bodies in, scores out. Knows HTTP and the wire bodies, and no tokens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

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
    TooSlow,
    Unauthorized,
    UpstreamFailed,
)
from agentprm.types import StepScore, Usage
from service import examples
from service.fair_queue import Priority
from service.generation.policy import Policy, SampledAction
from service.items import convert_items, proposal_of, refuse_many_candidates, sample_actions, trajectory_of
from service.models import Models, ServedModel
from service.scores import ItemRanking, ItemScores, Terms, Timings

PROBE_ROUTES: Final = ("/health", "/ready", "/metrics")
SCORE_ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ROUTES: Final = (*SCORE_ROUTES, "/models", *PROBE_ROUTES)

ScoresReply = wire.ScoreStepReply | wire.ScoreTrajectoryReply | wire.RankActionsReply

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


def build_router(
    models: Models, probes: Probes, policy: Policy | None, *, max_items: int, max_candidates: int
) -> APIRouter:
    """``policy`` samples candidates where a request asks for that; None: such a request is refused."""
    router = APIRouter()
    _add_score_routes(router, models, max_items)
    _add_rank_route(router, models, policy, max_items, max_candidates)
    _add_probe_routes(router, models, probes)
    return router


def _add_score_routes(router: APIRouter, models: Models, max_items: int) -> None:
    @router.post("/score_step", tags=["scores"], **_documented(wire.ScoreStepReply, examples.STEP_REPLY))
    async def score_step(request: Request, body: ScoreBody, terms: Interactive) -> Response:
        """Promise and progress of the last step of each trajectory."""
        with _leased(request, models, body.model) as model:
            trajectories = convert_items(body.items, trajectory_of, max_items)
            scores = await model.scorer.score_steps(trajectories, terms.within(body.deadline_ms))
            results = [_step_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return _reply(request, wire.ScoreStepReply(model=model.identity, results=results), scores.timings)

    @router.post(
        "/score_trajectory", tags=["scores"], **_documented(wire.ScoreTrajectoryReply, examples.TRAJECTORY_REPLY)
    )
    async def score_trajectory(request: Request, body: ScoreBody, terms: Bulk) -> Response:
        """Promise and progress of every step of each trajectory, in one pass."""
        with _leased(request, models, body.model) as model:
            trajectories = convert_items(body.items, trajectory_of, max_items)
            scores = await model.scorer.score_trajectories(trajectories, terms.within(body.deadline_ms))
            results = [_trajectory_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return _reply(request, wire.ScoreTrajectoryReply(model=model.identity, results=results), scores.timings)


def _add_rank_route(
    router: APIRouter, models: Models, policy: Policy | None, max_items: int, max_candidates: int
) -> None:
    @router.post("/rank_actions", tags=["scores"], **_documented(wire.RankActionsReply, examples.RANK_REPLY))
    async def rank_actions(request: Request, body: RankBody, terms: Interactive) -> Response:
        """The candidates of each state, best promise first; with `sample`, the policy's own."""
        with _leased(request, models, body.model) as model:
            refuse_many_candidates(body.items, max_candidates)
            proposals = convert_items(body.items, proposal_of, max_items)
            states, candidates = [state for state, _ in proposals], [actions for _, actions in proposals]
            terms = terms.within(body.deadline_ms)
            sampled, seconds = await sample_actions(policy, body.items, states, terms)
            for index, actions in sampled.items():
                candidates[index] = [action.text for action in actions]
            rankings = await model.scorer.rank(states, candidates, terms)
            results = [
                _rank_result(item.id, one, sampled.get(index))
                for index, (item, one) in enumerate(zip(body.items, rankings.items, strict=True))
            ]
            reply = wire.RankActionsReply(model=model.identity, results=results)
            return _reply(request, reply, rankings.timings, **({"sample": seconds} if sampled else {}))


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
    """The model that is asked for, until the block ends; from here on log, metrics and traces name it."""
    with models.find(reference).leased() as model:
        request.state.model = model.reference
        request.state.asked = reference or model.reference
        yield model


def tell_models(models: Models) -> wire.ModelsReply:
    return wire.ModelsReply(models=[model.info for model in models.all])


def _documented(reply: type[wire.Body], example: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI page says about a score route; replies are serialised once, by ``_reply``."""
    errors = documented_errors(
        Unauthorized,
        Forbidden,
        InvalidRequest,
        TooSlow,
        TooLong,
        ModelNotFound,
        Overloaded,
        UpstreamFailed,
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


def _reply(request: Request, body: ScoresReply, timings: Timings, **before: float) -> Response:
    """The answer, and what log and trace are to say of it; ``before`` are the seconds of stages before the model's."""
    spent = before | timings._asdict()
    if (trace := getattr(request.state, "trace", None)) is not None:
        trace.on_answer(body, spent)
    milliseconds = {stage: round(seconds * 1000, 3) for stage, seconds in spent.items()}
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


def _rank_result(item_id: str | None, item: ItemRanking, sampled: Sequence[SampledAction] | None) -> wire.RankResult:
    ranking = [
        wire.RankedCandidate(
            index=action.index,
            rank=rank,
            **_fields(action.score),
            **({} if sampled is None else _sampled_fields(sampled[action.index])),
        )
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


def _sampled_fields(action: SampledAction) -> dict[str, Any]:
    return {"action": action.text, "complete": action.complete}


def _fields(score: StepScore) -> dict[str, Any]:
    """Not ``dataclasses.asdict``: it copies deeply, which is a tenth of what an answer from the score cache costs."""
    return {"promise": score.promise, "progress": score.progress, "raw": score.raw}
