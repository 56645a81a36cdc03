"""Converts scores to reply bodies, and timings to the server-timing header."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import Request, Response

from agentprm import wire
from agentprm.aggregate import Aggregate, aggregate
from agentprm.errors import RequestError
from agentprm.types import StepScore, Usage
from service.generation.policy import SampledAction
from service.scoring.results import ItemRanking, ItemScores, Timings

_CUT_FIELDS: Final = ("dropped_steps", "cut_tokens")
_USAGE_FIELDS: Final = tuple(name for name in wire.UsageBody.model_fields if name not in _CUT_FIELDS)


def reply_of(
    whole: Callable[..., wire.ScoresReply],
    outcomes: Callable[..., wire.ScoresReply],
    model: wire.ModelIdentity,
    results: Sequence[wire.Result],
) -> wire.ScoresReply:
    """Returns the reply as ``outcomes`` if an item has an error, else as ``whole``, which is serialised faster."""
    failed = any(isinstance(result, wire.ItemError) for result in results)
    return (outcomes if failed else whole)(model=model, results=results)


def reply_with(request: Request, body: wire.ScoresReply, timings: Timings, **before: float) -> Response:
    """Makes the response, and stores its figures for log and trace. ``before``: seconds of earlier stages."""
    spent = before | timings._asdict()
    if (trace := getattr(request.state, "trace", None)) is not None:
        trace.on_answer(body, spent)
    scored = _summed_usage(body)
    stages = []
    for stage, seconds in spent.items():
        milliseconds = round(seconds * 1000, 3)
        scored[f"{stage}_ms"] = milliseconds
        stages.append(f"{stage};dur={milliseconds:.3f}")
    request.state.scored = scored
    timing = {"server-timing": ", ".join(stages)}
    return Response(body.model_dump_json(), media_type="application/json", headers=timing)


def _summed_usage(body: wire.ScoresReply) -> dict[str, float]:
    """Returns the number of items and the tokens of all together; what failed or was cut only if anything was."""
    summed: dict[str, float] = {"items": len(body.results), **dict.fromkeys(_USAGE_FIELDS, 0)}
    cut = dict.fromkeys(_CUT_FIELDS, 0)
    for result in body.results:
        if isinstance(result, wire.ItemError):
            summed["item_errors"] = summed.get("item_errors", 0) + 1
            continue
        for name in _USAGE_FIELDS:
            summed[name] += getattr(result.usage, name)
        for name in _CUT_FIELDS:
            cut[name] += getattr(result.usage, name)
    return summed | {name: count for name, count in cut.items() if count}


def step_result(item_id: str | None, item: ItemScores) -> wire.StepResult | wire.ItemError:
    if item.error is not None:
        return _item_error(item_id, item.error)
    return wire.StepResult(id=item_id, usage=_usage(item.usage), **_fields(item.steps[-1]))


def trajectory_result(
    item_id: str | None, item: ItemScores, how: Aggregate | None
) -> wire.TrajectoryResult | wire.ItemError:
    if item.error is not None:
        return _item_error(item_id, item.error)
    steps = [wire.ScoreBody(**_fields(step)) for step in item.steps]
    one = None if how is None else aggregate(how, [step.promise for step in item.steps])
    return wire.TrajectoryResult(id=item_id, steps=steps, aggregate=one, usage=_usage(item.usage))


def rank_result(
    item_id: str | None, item: ItemRanking, sampled: Sequence[SampledAction] | None
) -> wire.RankResult | wire.ItemError:
    if item.error is not None:
        return _item_error(item_id, item.error)
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


def _item_error(item_id: str | None, error: RequestError) -> wire.ItemError:
    detail = wire.ErrorDetail(code=error.code, message=error.message, details=error.details)
    return wire.ItemError(id=item_id, error=detail)


def _usage(usage: Usage) -> wire.UsageBody:
    return wire.UsageBody(
        tokens=usage.tokens,
        computed=usage.computed,
        prefix_cache=usage.prefix_cache,
        score_cache=usage.score_cache,
        unknown=usage.unknown,
        dropped_steps=usage.dropped_steps,
        cut_tokens=usage.cut_tokens,
    )


def _sampled_fields(action: SampledAction) -> dict[str, Any]:
    return {"action": action.text, "complete": action.complete}


def _fields(score: StepScore) -> dict[str, Any]:
    """Returns the fields. ``dataclasses.asdict`` copies deeply: a tenth of the cost of a cached score."""
    return {"promise": score.promise, "progress": score.progress, "raw": score.raw}
