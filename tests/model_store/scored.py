"""Raw scores of trajectories by an engine, whichever template a checkpoint renders by."""

from collections.abc import Sequence
from typing import Any

from agentprm.types import Trajectory
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.loading import render
from model_store.text.renderer import Renderer


def scored(engine: Any, renderer: Renderer | ChatRenderer, trajectories: Sequence[Trajectory]) -> list[list[float]]:
    """All steps of all trajectories, in one call of the engine."""
    rows = [render(renderer, trajectory) for trajectory in trajectories]
    flat = [row for item in rows for row in item]
    scores = iter(engine.score([row.token_ids for row in flat], [row.reads for row in flat]))
    return [[raw for _ in item for raw in next(scores).raw] for item in rows]
