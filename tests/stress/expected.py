"""Computes the right answers in advance: every score of a forest of trajectories, by checkpoint.

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
    """A trajectory and the candidates of its last step, of which the first is the action taken."""

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


class RequestItem(NamedTuple):
    """An item of a request: the first steps of a ``Played``, or some of its candidates by index."""

    played: int
    steps: int
    candidates: tuple[int, ...] = ()


class WrongAnswer(Exception):
    """An answer is wrong. The message says how, without quoting a text."""


class Oracle:
    """Expected scores of each checkpoint by its digest."""

    def __init__(self, forest: Sequence[Played], checkpoints: Sequence[Checkpoint]) -> None:
        self._raw = {checkpoint.manifest.digest: _score(forest, checkpoint) for checkpoint in checkpoints}
        self._recipes = {checkpoint.manifest.digest: checkpoint.manifest.score for checkpoint in checkpoints}

    def check(self, route: str, items: Sequence[RequestItem], reply: Mapping[str, Any]) -> str:
        """Checks a reply and returns the digest of the model that answered.

        Raises:
            WrongAnswer: a checkpoint, an id, an order, a sum of tokens or a score is wrong.
        """
        digest: str = reply["model"]["digest"]
        if digest not in self._raw:
            raise WrongAnswer("a checkpoint that nobody published answered")
        if [result["id"] for result in reply["results"]] != [str(place) for place in range(len(items))]:
            raise WrongAnswer("the results are not those of the items, in their order")
        for wanted, result in zip(items, reply["results"], strict=True):
            self._check_item(route, wanted, result, digest)
        return digest

    def _check_item(self, route: str, wanted: RequestItem, result: Mapping[str, Any], digest: str) -> None:
        raw, recipe = self._raw[digest][wanted.played], self._recipes[digest]
        usage = result["usage"]
        if usage["tokens"] != usage["computed"] + usage["prefix_cache"] + usage["score_cache"]:
            raise WrongAnswer("the tokens of an item do not add up")
        if route == "/rank_actions":
            _check_ranking(wanted, result["ranking"], raw, recipe)
            return
        due = _with_progress(raw.steps[: wanted.steps], recipe)
        found = result["steps"] if route == "/score_trajectory" else [result]
        _compare(found, due if route == "/score_trajectory" else due[-1:])


def grow_forest(random: Random, words: Sequence[str], count: int) -> list[Played]:
    """Returns trajectories that branch off each other at every depth, and some that share nothing."""

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


def as_body(route: str, forest: Sequence[Played], items: Sequence[RequestItem], model: str | None) -> bytes:
    bodies = [_item(route, forest[wanted.played], wanted, str(place)) for place, wanted in enumerate(items)]
    return json.dumps({"items": bodies} | ({"model": model} if model else {})).encode()


def _item(route: str, played: Played, wanted: RequestItem, item_id: str) -> dict[str, Any]:
    steps = [{"observation": step.observation, "action": step.action} for step in played.trajectory.steps]
    item = {"id": item_id, "task": played.trajectory.task, "steps": steps[: wanted.steps]}
    if route != "/rank_actions":
        return item
    candidates = [played.candidates[index] for index in wanted.candidates]
    return {**item, "steps": steps[:-1], "observation": played.state.observation, "candidates": candidates}


def _score(forest: Sequence[Played], checkpoint: Checkpoint) -> list[Raw]:
    renderer = load_renderer(checkpoint)
    rows = [row for played in forest for row in _rows(renderer, played)]
    token_ids, reads = zip(*rows, strict=True)
    scores = iter(score_rows(load_model(checkpoint, "cpu", "float32"), token_ids, reads))
    return [Raw(next(scores), [next(scores)[0] for _ in played.candidates]) for played in forest]


def _rows(renderer: Renderer, played: Played) -> list[tuple[list[int], list[int]]]:
    """Scores each trajectory at every step, and each candidate after the state."""
    whole = renderer.trajectory(played.trajectory)
    state = renderer.state(played.state)
    ranked = [state.token_ids + action for action in renderer.actions(played.candidates, state)]
    return [(whole.token_ids, whole.step_ends), *((ids, [len(ids) - 1]) for ids in ranked)]


def _check_ranking(wanted: RequestItem, ranking: Sequence[Mapping[str, Any]], raw: Raw, recipe: ScoreRecipe) -> None:
    places = range(len(wanted.candidates))
    if sorted(entry["index"] for entry in ranking) != [*places] or [entry["rank"] for entry in ranking] != [*places]:
        raise WrongAnswer("a ranking does not hold every candidate once, by rank")
    if any(above["promise"] < below["promise"] for above, below in pairwise(ranking)):
        raise WrongAnswer("a ranking is not sorted by promise")
    before = raw.steps[:-1][-1:]
    due = [
        _with_progress([*before, raw.candidates[wanted.candidates[entry["index"]]]], recipe)[-1] for entry in ranking
    ]
    _compare(ranking, due)


def _with_progress(raw: Sequence[float], recipe: ScoreRecipe) -> list[dict[str, float | None]]:
    promises = [recipe.promise(score) for score in raw]
    progress = [None, *(after - before for before, after in pairwise(promises))]
    return [
        {"raw": score, "promise": promise, "progress": change}
        for score, promise, change in zip(raw, promises, progress, strict=True)
    ]


def _compare(found: Sequence[Mapping[str, Any]], due: Sequence[Mapping[str, float | None]]) -> None:
    if len(found) != len(due):
        raise WrongAnswer(f"{len(found)} scores where {len(due)} are due")
    for result, right in zip(found, due, strict=True):
        for name, value in right.items():
            if (result[name] is None) != (value is None):
                raise WrongAnswer(f"{name} is {result[name]} where {value} is due")
            if value is not None and not abs(result[name] - value) <= TOLERANCE:
                raise WrongAnswer(f"{name} is off by {abs(result[name] - value):.2g}")
