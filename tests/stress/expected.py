"""What the service must answer, known before it is asked: every score of a forest of trajectories, by checkpoint.

The scores are those of the plain padded forward, which knows no prefixes, no batches and no caches.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Final, NamedTuple

from agentprm.types import State, Step, Trajectory
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint
from model_store.network.model import load_model, score_rows
from model_store.text.renderer import Renderer, load_renderer

TOLERANCE: Final = 1e-4
MAX_STEPS: Final = 5
CANDIDATES: Final = 6


@dataclass(frozen=True, slots=True)
class Played:
    """A trajectory, and what else could have been done at its last step: the action itself comes first."""

    trajectory: Trajectory
    candidates: tuple[str, ...]

    @property
    def state(self) -> State:
        *before, last = self.trajectory.steps
        return State(self.trajectory.task, tuple(before), last.observation)


class Raw(NamedTuple):
    """Raw scores of a ``Played``."""

    steps: list[float]
    candidates: list[float]


class Asked(NamedTuple):
    """An item of a request: a ``Played`` up to so many steps, or some of its candidates by their indices."""

    played: int
    steps: int
    candidates: tuple[int, ...] = ()


class WrongAnswer(Exception):
    """An answer that is not what it must be. Says how, without quoting a text."""


class Oracle:
    """Expected scores of each checkpoint by its digest."""

    def __init__(self, forest: Sequence[Played], checkpoints: Sequence[Checkpoint]) -> None:
        self._raw = {one.manifest.digest: _score(forest, one) for one in checkpoints}
        self._recipes = {one.manifest.digest: one.manifest.score for one in checkpoints}

    def check(self, route: str, items: Sequence[Asked], reply: Mapping[str, Any]) -> str:
        """The digest of the model that answered.

        Raises:
            WrongAnswer: a checkpoint, an id, an order, a sum of tokens or a score that is not the right one.
        """
        digest: str = reply["model"]["digest"]
        if digest not in self._raw:
            raise WrongAnswer("a checkpoint that nobody published answered")
        if [result["id"] for result in reply["results"]] != [str(place) for place in range(len(items))]:
            raise WrongAnswer("the results are not those of the items, in their order")
        for asked, result in zip(items, reply["results"], strict=True):
            self._check_item(route, asked, result, digest)
        return digest

    def _check_item(self, route: str, asked: Asked, result: Mapping[str, Any], digest: str) -> None:
        raw, recipe = self._raw[digest][asked.played], self._recipes[digest]
        usage = result["usage"]
        if usage["tokens"] != usage["computed"] + usage["prefix_cache"] + usage["score_cache"]:
            raise WrongAnswer("the tokens of an item do not add up")
        if route == "/rank_actions":
            _check_ranking(asked, result["ranking"], raw, recipe)
            return
        due = _with_progress(raw.steps[: asked.steps], recipe)
        found = result["steps"] if route == "/score_trajectory" else [result]
        _compare(found, due if route == "/score_trajectory" else due[-1:])


def grow_forest(random: Random, words: Sequence[str], count: int) -> list[Played]:
    """Trajectories that leave each other at every depth, and some that are alone."""

    def text(longest: int) -> str:
        return " ".join(random.choices(words, k=random.randint(1, longest)))

    forest: list[Played] = []
    for _ in range(count):
        other = random.choice(forest).trajectory if forest and random.random() < 0.6 else Trajectory(text(40))
        kept = other.steps[: random.randint(0, MAX_STEPS - 1)]
        more = (Step(text(10), text(8)) for _ in range(random.randint(1, MAX_STEPS - len(kept))))
        steps = (*kept, *more)
        candidates = (steps[-1].action, *(text(8) for _ in range(CANDIDATES - 1)))
        forest.append(Played(Trajectory(other.task, steps), candidates))
    return forest


def as_body(route: str, forest: Sequence[Played], items: Sequence[Asked], model: str | None) -> bytes:
    bodies = [_item(route, forest[asked.played], asked, str(place)) for place, asked in enumerate(items)]
    return json.dumps({"items": bodies} | ({"model": model} if model else {})).encode()


def _item(route: str, played: Played, asked: Asked, item_id: str) -> dict[str, Any]:
    steps = [{"observation": step.observation, "action": step.action} for step in played.trajectory.steps]
    item = {"id": item_id, "task": played.trajectory.task, "steps": steps[: asked.steps]}
    if route != "/rank_actions":
        return item
    candidates = [played.candidates[index] for index in asked.candidates]
    return {**item, "steps": steps[:-1], "observation": played.state.observation, "candidates": candidates}


def _score(forest: Sequence[Played], checkpoint: Checkpoint) -> list[Raw]:
    renderer = load_renderer(checkpoint)
    rows = [row for played in forest for row in _rows(renderer, played)]
    token_ids, reads = zip(*rows, strict=True)
    scores = iter(score_rows(load_model(checkpoint, "cpu", "float32"), token_ids, reads))
    return [Raw(next(scores), [next(scores)[0] for _ in played.candidates]) for played in forest]


def _rows(renderer: Renderer, played: Played) -> list[tuple[list[int], list[int]]]:
    """The whole trajectory, read at every step; then each candidate after the state, read at its end."""
    whole = renderer.trajectory(played.trajectory)
    state = renderer.state(played.state)
    ranked = [state.token_ids + action for action in renderer.actions(played.candidates, state)]
    return [(whole.token_ids, whole.step_ends), *((ids, [len(ids) - 1]) for ids in ranked)]


def _check_ranking(asked: Asked, ranking: Sequence[Mapping[str, Any]], raw: Raw, recipe: ScoreRecipe) -> None:
    places = range(len(asked.candidates))
    if sorted(one["index"] for one in ranking) != [*places] or [one["rank"] for one in ranking] != [*places]:
        raise WrongAnswer("a ranking does not hold every candidate once, by rank")
    if any(one["promise"] < other["promise"] for one, other in pairwise(ranking)):
        raise WrongAnswer("a ranking is not sorted by promise")
    before = raw.steps[:-1][-1:]
    due = [_with_progress([*before, raw.candidates[asked.candidates[one["index"]]]], recipe)[-1] for one in ranking]
    _compare(ranking, due)


def _with_progress(raw: Sequence[float], recipe: ScoreRecipe) -> list[dict[str, float | None]]:
    promises = [recipe.promise(one) for one in raw]
    progress = [None, *(after - before for before, after in pairwise(promises))]
    return [
        {"raw": one, "promise": promise, "progress": change}
        for one, promise, change in zip(raw, promises, progress, strict=True)
    ]


def _compare(found: Sequence[Mapping[str, Any]], due: Sequence[Mapping[str, float | None]]) -> None:
    if len(found) != len(due):
        raise WrongAnswer(f"{len(found)} scores where {len(due)} are due")
    for one, right in zip(found, due, strict=True):
        for name, value in right.items():
            if (one[name] is None) != (value is None):
                raise WrongAnswer(f"{name} is {one[name]} where {value} is due")
            if value is not None and not abs(one[name] - value) <= TOLERANCE:
                raise WrongAnswer(f"{name} is off by {abs(one[name] - value):.2g}")
