"""The routes that score: validated bodies in, scores out. Knows HTTP and the wire bodies, and no tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Body, Header, Request, Response

from agentprm import wire
from service.http import examples
from service.http.items import (
    Item,
    convert_items,
    history_of,
    proposal_of,
    refuse_too_many_candidates,
    sample_actions,
    steps_of,
)
from service.http.openapi import documented
from service.http.replies import rank_result, reply_with, step_result, trajectory_result
from service.http.routes.probes import PROBE_ROUTES
from service.http.state import route_state
from service.models.served import ServedModel
from service.queue.fair_queue import Priority
from service.queue.terms import Terms

SCORE_ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ROUTES: Final = (*SCORE_ROUTES, "/models", *PROBE_ROUTES)

ScoreBody = Annotated[wire.ScoreRequest, Body(openapi_examples=examples.SCORE_REQUESTS)]
TrajectoryBody = Annotated[wire.ScoreTrajectoryRequest, Body(openapi_examples=examples.SCORE_REQUESTS)]
RankBody = Annotated[wire.RankRequest, Body(openapi_examples=examples.RANK_REQUESTS)]
Deadline = Annotated[
    wire.Milliseconds | wire.Unsent,
    Header(alias="x-deadline-ms", description="Milliseconds the caller will wait; later the answer is 504."),
]
XPriority = Annotated[Priority, Header(description="`interactive` is computed before `bulk`; neither starves.")]

T = TypeVar("T")

router = APIRouter(tags=["scores"])


@router.post("/score_step", **documented(wire.ScoreStepReply, examples.STEP_REPLY))
async def score_step(
    request: Request, body: ScoreBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.INTERACTIVE
) -> Response:
    """Promise and progress of the last step of each trajectory."""
    terms = _terms(request, x_priority, x_deadline_ms, body.deadline_ms)
    with _leased_model(request, body.model) as model:
        trajectories = _converted(request, model, body.items, history_of)
        scores = await model.scorer.score_steps(trajectories, terms)
        results = [step_result(item.id, score) for item, score in zip(body.items, scores.items, strict=True)]
        return reply_with(request, wire.ScoreStepReply(model=model.identity, results=results), scores.timings)


@router.post("/score_trajectory", **documented(wire.ScoreTrajectoryReply, examples.TRAJECTORY_REPLY))
async def score_trajectory(
    request: Request, body: TrajectoryBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.BULK
) -> Response:
    """Promise and progress of every step of each trajectory, in one pass."""
    terms = _terms(request, x_priority, x_deadline_ms, body.deadline_ms)
    with _leased_model(request, body.model) as model:
        trajectories = _converted(request, model, body.items, steps_of)
        scores = await model.scorer.score_trajectories(trajectories, terms)
        answered = zip(body.items, scores.items, strict=True)
        results = [trajectory_result(item.id, score, body.aggregate) for item, score in answered]
        return reply_with(request, wire.ScoreTrajectoryReply(model=model.identity, results=results), scores.timings)


@router.post("/rank_actions", **documented(wire.RankActionsReply, examples.RANK_REPLY))
async def rank_actions(
    request: Request, body: RankBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.INTERACTIVE
) -> Response:
    """The candidates of each state, best promise first; with `sample`, the policy's own."""
    terms = _terms(request, x_priority, x_deadline_ms, body.deadline_ms)
    state = route_state(request)
    with _leased_model(request, body.model) as model:
        refuse_too_many_candidates(body.items, state.max_candidates)
        proposals = _converted(request, model, body.items, proposal_of)
        histories, candidates = [history for history, _ in proposals], [actions for _, actions in proposals]
        sampled, seconds = await sample_actions(state.policy, body.items, histories, terms)
        for index, actions in sampled.items():
            candidates[index] = [action.text for action in actions]
        rankings = await model.scorer.rank(histories, candidates, terms)
        results = [
            rank_result(item.id, ranking, sampled.get(index))
            for index, (item, ranking) in enumerate(zip(body.items, rankings.items, strict=True))
        ]
        reply = wire.RankActionsReply(model=model.identity, results=results)
        return reply_with(request, reply, rankings.timings, **({"sample": seconds} if sampled else {}))


def _terms(request: Request, priority: Priority, *milliseconds: int | None) -> Terms:
    """Terms of a request. ``milliseconds``: the caller's deadlines, None where one is not sent; the earliest counts."""
    terms = Terms(request.state.caller, priority, request.state.arrived)
    for limit in milliseconds:
        terms = terms.with_timeout(limit)
    return terms


def _converted(request: Request, model: ServedModel, items: Sequence[Item], convert: Callable[[Item], T]) -> list[T]:
    """Converts items within the limits of the service and of the model."""
    most = route_state(request).max_items
    return convert_items(items, convert, max_items=most, max_characters=model.info.limits.characters)


@contextmanager
def _leased_model(request: Request, reference: str | None) -> Iterator[ServedModel]:
    """Leases the requested model until the block ends, and names it in the request's log line, metrics and trace."""
    with route_state(request).models.find(reference).leased() as model:
        request.state.model = model.reference
        request.state.requested_model = reference or model.reference
        yield model
