"""The routes: validated bodies in, scores out. Knows HTTP and the wire bodies, and no tokens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import APIRouter, Body, Depends, Header, Request, Response

from agentprm import wire
from service.generation.policy import Policy
from service.http import examples
from service.http.items import convert_items, proposal_of, refuse_many_candidates, sample_actions, trajectory_of
from service.http.openapi import documented
from service.http.replies import rank_result, reply_with, step_result, trajectory_result
from service.http.routes.probes import PROBE_ROUTES, Probes, add_probe_routes
from service.models.catalog import Models
from service.models.served import ServedModel
from service.queue.fair_queue import Priority
from service.queue.terms import Terms

SCORE_ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ROUTES: Final = (*SCORE_ROUTES, "/models", *PROBE_ROUTES)

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


def build_router(
    models: Models, probes: Probes, policy: Policy | None, *, max_items: int, max_candidates: int
) -> APIRouter:
    """``policy`` samples candidates where a request asks for that; None: such a request is refused."""
    router = APIRouter()
    _add_score_routes(router, models, max_items)
    _add_rank_route(router, models, policy, max_items, max_candidates)
    add_probe_routes(router, models, probes)
    return router


def _add_score_routes(router: APIRouter, models: Models, max_items: int) -> None:
    @router.post("/score_step", tags=["scores"], **documented(wire.ScoreStepReply, examples.STEP_REPLY))
    async def score_step(request: Request, body: ScoreBody, terms: Interactive) -> Response:
        """Promise and progress of the last step of each trajectory."""
        with _leased(request, models, body.model) as model:
            trajectories = convert_items(body.items, trajectory_of, max_items)
            scores = await model.scorer.score_steps(trajectories, terms.within(body.deadline_ms))
            results = [step_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return reply_with(request, wire.ScoreStepReply(model=model.identity, results=results), scores.timings)

    @router.post(
        "/score_trajectory", tags=["scores"], **documented(wire.ScoreTrajectoryReply, examples.TRAJECTORY_REPLY)
    )
    async def score_trajectory(request: Request, body: ScoreBody, terms: Bulk) -> Response:
        """Promise and progress of every step of each trajectory, in one pass."""
        with _leased(request, models, body.model) as model:
            trajectories = convert_items(body.items, trajectory_of, max_items)
            scores = await model.scorer.score_trajectories(trajectories, terms.within(body.deadline_ms))
            results = [trajectory_result(item.id, one) for item, one in zip(body.items, scores.items, strict=True)]
            return reply_with(request, wire.ScoreTrajectoryReply(model=model.identity, results=results), scores.timings)


def _add_rank_route(
    router: APIRouter, models: Models, policy: Policy | None, max_items: int, max_candidates: int
) -> None:
    @router.post("/rank_actions", tags=["scores"], **documented(wire.RankActionsReply, examples.RANK_REPLY))
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
                rank_result(item.id, one, sampled.get(index))
                for index, (item, one) in enumerate(zip(body.items, rankings.items, strict=True))
            ]
            reply = wire.RankActionsReply(model=model.identity, results=results)
            return reply_with(request, reply, rankings.timings, **({"sample": seconds} if sampled else {}))


@contextmanager
def _leased(request: Request, models: Models, reference: str | None) -> Iterator[ServedModel]:
    """The model that is asked for, until the block ends; from here on log, metrics and traces name it."""
    with models.find(reference).leased() as model:
        request.state.model = model.reference
        request.state.asked = reference or model.reference
        yield model
