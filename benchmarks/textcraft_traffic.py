"""W5 from real traffic: what a best-of-8 search on TextCraft's train goals sends to be ranked.

The proposals are the noisy planner's; the judge that takes the best one is a small random model, so the episodes
mostly run to the end of their budget, as hard ones do. Two cases of one traffic: as sent, equal proposals and all,
and distinct, where a caller drops those first. Tokens are those of the demo's word-level tokenizer: a subword
tokenizer makes two to three times as many of the same text.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentprm.types import State
from benchmarks.models import VOCABULARY, judge_config, random_model
from benchmarks.workloads import Call, Workload, last_reads
from model_store.render import Renderer
from training.critic import Critic
from training.policy import NoisyPlanner
from training.recipes import load_recipes
from training.search import BestPromise, act
from training.textcraft import Goal, TextCraft, budget, train_goals
from training.tokenizer import TEMPLATE, build_tokenizer

PROPOSALS = 8


@dataclass(slots=True)
class Recorder:
    """Chooses as ``best`` does and keeps what had to be scored, by task."""

    renderer: Renderer
    best: BestPromise
    calls: dict[str, list[Call]] = field(default_factory=dict)

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        for state, actions in zip(states, proposed, strict=True):
            history = self.renderer.state(state).token_ids
            rows = [history + action for action in self.renderer.actions(actions)]
            self.calls.setdefault(state.task, []).append(last_reads(rows))
        return self.best(states, proposed)


def textcraft(episodes: int) -> list[Workload]:
    """Episodes on the train goals with the largest budgets, one call a step, one episode after the other."""
    goals = longest_goals(episodes)
    renderer = Renderer(build_tokenizer(_texts(goals)), TEMPLATE)
    recorder = Recorder(renderer, BestPromise(Critic(random_model(judge_config()), renderer)))
    act(goals, NoisyPlanner(), recorder, proposals=PROPOSALS, episodes=1, seed=0)
    calls = tuple(call for steps in recorder.calls.values() for call in steps)
    assert all(token < VOCABULARY for call in calls for ids in call.token_ids for token in ids)
    played = f"{episodes} episodes, {len(calls)} steps"
    return [
        Workload("W5", f"TextCraft as sent, {played}", calls, grows=True),
        Workload("W5", f"TextCraft distinct, {played}", tuple(map(_distinct, calls)), grows=True),
    ]


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
