"""Items that were scored, as lines of rollout files."""

from collections.abc import Sequence

from fastapi import Request

from agentprm import wire
from agentprm.errors import RequestError
from agentprm.rollouts import TrajectoryLine
from service.http.item_sizes import characters_of
from service.http.state import route_state

_FIELDS = ("trajectory_id", "task", "steps", "observation", "messages", "tools", "reasoning")


def record(
    request: Request,
    items: Sequence[wire.TrajectoryItem | wire.RankItem | wire.RefusedItem],
    scores: Sequence[object],
) -> None:
    """Hands the histories that have a ``trajectory_id``, a step and a score to the recorder, if there is one."""
    recorder = route_state(request).recorder
    if recorder is None:
        return
    for item, score in zip(items, scores, strict=True):
        if isinstance(item, wire.RefusedItem) or isinstance(score, RequestError) or not item.trajectory_id:
            continue
        line = _line(item)
        if line.step_count:
            recorder.add(line, characters_of(item))


def _line(item: wire.TrajectoryItem | wire.RankItem) -> TrajectoryLine:
    """The history of an item, which is valid already; nothing of it is copied."""
    return TrajectoryLine.model_construct(**{name: getattr(item, name, None) for name in _FIELDS})
