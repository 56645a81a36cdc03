"""What a step is worth, as the event ``gen_ai.evaluation.result`` of the span that was judged: the caller's."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from opentelemetry._logs import Logger
from opentelemetry.context import Context

from agentprm import wire

MAX_EVENTS: Final = 16
"""Of one request, of a ranking the best: an event costs some 45 us of CPU, more than a score that is known."""

ScoresReply = wire.ScoreStepReply | wire.ScoreTrajectoryReply | wire.RankActionsReply


def emit(events: Logger, reply: ScoresReply, judged: Context, timestamp: int) -> int:
    """How many scores the reply has; the first ``MAX_EVENTS`` of them were told."""
    model = f"{reply.model.name}@{reply.model.version}"
    scores = list(_scores(reply))
    for place, score in islice(scores, MAX_EVENTS):
        attributes: dict[str, str | float] = {
            "gen_ai.evaluation.name": "promise",
            "gen_ai.evaluation.score.value": score.promise,
            "gen_ai.response.model": model,
            **place,
        }
        if score.progress is not None:
            attributes["agentprm.progress"] = score.progress
        events.emit(timestamp=timestamp, context=judged, event_name="gen_ai.evaluation.result", attributes=attributes)
    return len(scores)


def _scores(reply: ScoresReply) -> Iterator[tuple[dict[str, int], wire.ScoreBody]]:
    """Each score, and which of the request it is."""
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
