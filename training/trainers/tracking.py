"""Where the metrics of a run go: a tracker of accelerate, if one was asked for."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from agentprm.errors import InvalidRequest
from training.trainers.recipe import Recipe


def accelerator_of(track: str | None, directory: Path, recipe: Recipe) -> Accelerator:
    """Returns an accelerator on the best device here, whose ``log`` goes to the tracker; files go into ``directory``.

    Raises:
        InvalidRequest: there is no such tracker, or its package is not installed.
    """
    if track is None:
        return Accelerator()
    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    if track not in known:
        raise InvalidRequest(f"there is no tracker {track!r}; there are: {', '.join(known)}")
    if track not in {str(name) for name in get_available_trackers()}:
        raise InvalidRequest(f"the tracker {track} needs its package: pip install {track}")
    accelerator = Accelerator(log_with=track, project_dir=directory)
    accelerator.init_trackers("agentprm", config=_plain(recipe.to_json()))
    return accelerator


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """Numbers and texts only, which every tracker takes."""
    flat = recipe | {f"labels_{name}": value for name, value in recipe["labels"].items()}
    return {name: value for name, value in flat.items() if isinstance(value, int | float | str)}
