"""W5 from real traffic: what a best-of-8 search on TextCraft's train goals sends to be ranked.

The proposals are the noisy planner's; the judge that takes the best one is a small random model, so the episodes
mostly run to the end of their budget, as hard ones do. Two cases of one traffic: as sent, equal proposals and all,
and distinct, where a caller drops those first. Tokens are those of the demo's word-level tokenizer: a subword
tokenizer makes two to three times as many of the same text. ``textcraft_load`` is the same traffic as requests.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from agentprm.search.choosers import BestPromise
from agentprm.types import State
from benchmarks.workloads.models import VOCABULARY, judge_config, random_model
from benchmarks.workloads.requests import RECIPE, Body, Load
from benchmarks.workloads.tokens import Call, Workload, last_reads
from model_store.text.renderer import Renderer
from training.data.tokenizer import TEMPLATE, build_tokenizer
from training.environments.textcraft.environment import Goal, TextCraft, budget, train_goals
from training.environments.textcraft.planner import NoisyPlanner
from training.environments.textcraft.recipes import load_recipes
from training.evaluation.acting import act
from training.evaluation.critic import Critic

PROPOSALS = 8


class Asked(NamedTuple):
    """A state of an episode and the actions that were proposed in it."""

    state: State
    proposed: list[str]


@dataclass(slots=True)
class Recorder:
    """Chooses as ``best`` does and keeps what had to be scored, by task."""

    best: BestPromise
    by_task: dict[str, list[Asked]] = field(default_factory=dict)

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        for state, actions in zip(states, proposed, strict=True):
            self.by_task.setdefault(state.task, []).append(Asked(state, list(actions)))
        return self.best(states, proposed)

    @property
    def asked(self) -> list[Asked]:
        """One episode after the other."""
        return [one for episode in self.by_task.values() for one in episode]


def textcraft(episodes: int) -> list[Workload]:
    """Episodes on the train goals with the largest budgets, one call a step, one episode after the other."""
    renderer, asked = record(episodes)
    calls = tuple(_call(renderer, one) for one in asked)
    assert all(token < VOCABULARY for call in calls for ids in call.token_ids for token in ids)
    played = f"{episodes} episodes, {len(calls)} steps"
    return [
        Workload("W5", f"TextCraft as sent, {played}", calls, grows=True),
        Workload("W5", f"TextCraft distinct, {played}", tuple(map(_distinct, calls)), grows=True),
    ]


def textcraft_load(episodes: int) -> Load:
    """The same as one ``/rank_actions`` a step, equal proposals and all."""
    _, asked = record(episodes)
    case = f"TextCraft as sent, {episodes} episodes, {len(asked)} requests"
    return Load("W5", case, "/rank_actions", tuple({"items": [_item(one)]} for one in asked))


def record(episodes: int) -> tuple[Renderer, list[Asked]]:
    """What is to be ranked, step by step, and the renderer that the judge read it with."""
    goals = longest_goals(episodes)
    renderer = Renderer(build_tokenizer(_texts(goals)), TEMPLATE)
    recorder = Recorder(BestPromise(Critic(random_model(judge_config()), renderer, RECIPE).action_promises))
    act(goals, TextCraft, NoisyPlanner(), recorder, proposals=PROPOSALS, episodes=1, seed=0)
    return renderer, recorder.asked


def _call(renderer: Renderer, asked: Asked) -> Call:
    history = renderer.state(asked.state)
    return last_reads([history.token_ids + action for action in renderer.actions(asked.proposed, history)])


def _item(asked: Asked) -> Body:
    return {**asdict(asked.state), "candidates": asked.proposed}


def _distinct(call: Call) -> Call:
    return last_reads([list(ids) for ids in dict.fromkeys(map(tuple, call.token_ids))])


def longest_goals(count: int) -> list[Goal]:
    goals = list(train_goals())
    random.Random(0).shuffle(goals)
    return sorted(goals, key=budget, reverse=True)[:count]


def _texts(goals: Sequence[Goal]) -> list[str]:
    """The words of the world: recipes, items, tasks, and what the environment replies."""
    book = load_recipes()
    commands = [recipe.command for recipe in book.recipes.values()]
    tasks = [TextCraft(goal, seed=0).reset().task for goal in goals]
    replies = "Got Crafted Could not execute find enough items to a valid recipe for left Inventory You are carrying"
    return [*commands, *book.base_items, *tasks, replies, "anything inventory", " ".join(map(str, range(100)))]
