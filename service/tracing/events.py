"""Scores as events ``gen_ai.evaluation.result`` of the span that they judge, which is the caller's."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from opentelemetry._logs import Logger
from opentelemetry.context import Context

from agentprm import wire

MAX_EVENTS: Final = 16
"""Most events of one request; of a ranking, its first places. An event costs 45 us of CPU, more than a cached score."""


def emit(events: Logger, reply: wire.ScoresReply, judged: Context, timestamp: int) -> int:
    """Emits the first ``MAX_EVENTS`` scores of a reply and returns how many it has.

    Args:
        events: takes the events.
        reply: the scores.
        judged: context with the judged span.
        timestamp: time of the reply, in nanoseconds since the epoch.
    """
    model = f"{reply.model.name}@{reply.model.version}"
    scores = list(_scores(reply))
    for position, score in islice(scores, MAX_EVENTS):
        attributes: dict[str, str | float] = {
            "gen_ai.evaluation.name": "promise",
            "gen_ai.evaluation.score.value": score.promise,
            "gen_ai.response.model": model,
            **position,
        }
        if score.progress is not None:
            attributes["agentprm.progress"] = score.progress
        events.emit(timestamp=timestamp, context=judged, event_name="gen_ai.evaluation.result", attributes=attributes)
    return len(scores)


def _scores(reply: wire.ScoresReply) -> Iterator[tuple[dict[str, int], wire.ScoreBody]]:
    """Yields each score with its position in the request, as attributes."""
    for item, result in enumerate(reply.results):
        match result:
            case wire.TrajectoryResult():
                for step, score in enumerate(result.steps):
                    yield {"agentprm.item": item, "agentprm.step": step}, score
            case wire.RankResult():
                for ranked in result.ranking:
                    yield {"agentprm.item": item, "agentprm.candidate": ranked.index}, ranked
            case wire.StepResult():
                yield {"agentprm.item": item}, result
