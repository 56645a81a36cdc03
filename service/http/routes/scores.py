"""The routes that score: validated bodies in, scores out. Knows HTTP and the wire bodies, and no tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import APIRouter, Body, Header, Request, Response

from agentprm import wire
from agentprm.errors import RequestError
from agentprm.types import Overflow
from service.http import examples
from service.http.items import ItemLimits, convert_items, history_of, proposal_of, steps_of
from service.http.openapi import documented
from service.http.recorded import record
from service.http.replies import rank_result, reply_of, reply_with, step_result, trajectory_result
from service.http.routes.outcomes import OUTCOMES
from service.http.routes.probes import PROBE_ROUTES
from service.http.sampling import with_samples
from service.http.state import route_state
from service.models.served import ServedModel
from service.queue.fair_queue import Priority
from service.queue.terms import Terms

SCORE_ROUTES: Final = ("/score_step", "/score_trajectory", "/rank_actions")
ROUTES: Final = (*SCORE_ROUTES, OUTCOMES, "/models", *PROBE_ROUTES)

ScoreBody = Annotated[wire.ScoreRequest, Body(openapi_examples=examples.SCORE_REQUESTS)]
TrajectoryBody = Annotated[wire.ScoreTrajectoryRequest, Body(openapi_examples=examples.SCORE_REQUESTS)]
RankBody = Annotated[wire.RankRequest, Body(openapi_examples=examples.RANK_REQUESTS)]
Deadline = Annotated[
    wire.Milliseconds | wire.Unsent,
    Header(alias="x-deadline-ms", description="Milliseconds the caller will wait; later the answer is 504."),
]
XPriority = Annotated[Priority, Header(description="`interactive` is computed before `bulk`; neither starves.")]

router = APIRouter(tags=["scores"])


@router.post("/score_step", **documented(wire.ScoreStepOutcomes, examples.STEP_REPLY))
async def score_step(
    request: Request, body: ScoreBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.INTERACTIVE
) -> Response:
    """Promise and progress of the last step of each trajectory."""
    terms = _terms(request, body, x_priority, x_deadline_ms)
    with _leased_model(request, body.model) as model:
        trajectories = convert_items(body.items, history_of, _limits(request, model), per_item=terms.per_item)
        scores = await model.scorer.score_steps(trajectories, terms, _overflows(body.items))
        record(request, body.items, scores.items)
        results = [step_result(item.id, score) for item, score in zip(body.items, scores.items, strict=True)]
        reply = reply_of(wire.ScoreStepReply, wire.ScoreStepOutcomes, model.identity, results)
        return reply_with(request, reply, scores.timings)


@router.post("/score_trajectory", **documented(wire.ScoreTrajectoryOutcomes, examples.TRAJECTORY_REPLY))
async def score_trajectory(
    request: Request, body: TrajectoryBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.BULK
) -> Response:
    """Promise and progress of every step of each trajectory, in one pass."""
    terms = _terms(request, body, x_priority, x_deadline_ms)
    with _leased_model(request, body.model) as model:
        trajectories = convert_items(body.items, steps_of, _limits(request, model), per_item=terms.per_item)
        scores = await model.scorer.score_trajectories(trajectories, terms, _overflows(body.items))
        record(request, body.items, scores.items)
        answered = zip(body.items, scores.items, strict=True)
        results = [trajectory_result(item.id, score, body.aggregate) for item, score in answered]
        reply = reply_of(wire.ScoreTrajectoryReply, wire.ScoreTrajectoryOutcomes, model.identity, results)
        return reply_with(request, reply, scores.timings)


@router.post("/rank_actions", **documented(wire.RankActionsOutcomes, examples.RANK_REPLY))
async def rank_actions(
    request: Request, body: RankBody, x_deadline_ms: Deadline = None, x_priority: XPriority = Priority.INTERACTIVE
) -> Response:
    """The candidates of each state, best promise first; with `sample`, the policy's own."""
    terms = _terms(request, body, x_priority, x_deadline_ms)
    with _leased_model(request, body.model) as model:
        proposals = convert_items(body.items, proposal_of, _limits(request, model), per_item=terms.per_item)
        proposals, sampled, seconds = await with_samples(route_state(request).policy, body.items, proposals, terms)
        states = [proposal if isinstance(proposal, RequestError) else proposal[0] for proposal in proposals]
        candidates = [[] if isinstance(proposal, RequestError) else proposal[1] for proposal in proposals]
        rankings = await model.scorer.rank(states, candidates, terms, _overflows(body.items))
        record(request, body.items, rankings.items)
        results = [
            rank_result(item.id, ranking, sampled.get(index))
            for index, (item, ranking) in enumerate(zip(body.items, rankings.items, strict=True))
        ]
        reply = reply_of(wire.RankActionsReply, wire.RankActionsOutcomes, model.identity, results)
        return reply_with(request, reply, rankings.timings, **({"sample": seconds} if sampled else {}))


def _terms(
    request: Request, body: wire.ScoreRequest | wire.RankRequest, priority: Priority, header_ms: int | None
) -> Terms:
    """Terms of a request. Of the deadlines in header and body, None where one is not sent, the earlier counts."""
    terms = Terms(request.state.caller, priority, request.state.arrived, per_item=body.on_error == "item")
    return terms.with_timeout(header_ms).with_timeout(body.deadline_ms)


def _overflows(items: Sequence[wire.TrajectoryItem | wire.RankItem | wire.RefusedItem]) -> list[Overflow]:
    return ["error" if isinstance(item, wire.RefusedItem) else item.overflow for item in items]


def _limits(request: Request, model: ServedModel) -> ItemLimits:
    state = route_state(request)
    return ItemLimits(state.max_items, model.info.limits.characters, state.max_candidates)


@contextmanager
def _leased_model(request: Request, reference: str | None) -> Iterator[ServedModel]:
    """Leases the requested model until the block ends, and names it in the request's log line, metrics and trace."""
    with route_state(request).models.find(reference).leased() as model:
        request.state.model = model.reference
        request.state.requested_model = reference or model.reference
        yield model
