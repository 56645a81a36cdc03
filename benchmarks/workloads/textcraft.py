"""W5 from recorded traffic: the rankings of a best-of-8 search on TextCraft's train goals.

The noisy planner makes the proposals. A small random model chooses among them, so most episodes use up their budget, as
hard ones do. There are two cases: ``as sent``, with equal proposals, and ``distinct``, where a caller drops duplicates.
The tokenizer is word-level; a subword tokenizer makes two to three times as many tokens of the same text.
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


class Decision(NamedTuple):
    """A state of an episode and the actions that were proposed in it."""

    state: State
    proposed: list[str]


@dataclass(slots=True)
class Recorder:
    """Chooses as ``best`` does and records every decision by task."""

    best: BestPromise
    by_task: dict[str, list[Decision]] = field(default_factory=dict)

    def __call__(self, states: Sequence[State], proposed: Sequence[Sequence[str]]) -> list[str]:
        for state, actions in zip(states, proposed, strict=True):
            self.by_task.setdefault(state.task, []).append(Decision(state, list(actions)))
        return self.best(states, proposed)

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, episode after episode."""
        return [decision for episode in self.by_task.values() for decision in episode]


def textcraft(episodes: int) -> list[Workload]:
    """Returns episodes on the train goals with the largest budgets as workloads with one call a step."""
    renderer, decisions = record(episodes)
    calls = tuple(_call(renderer, decision) for decision in decisions)
    assert all(token < VOCABULARY for call in calls for ids in call.token_ids for token in ids)
    played = f"{episodes} episodes, {len(calls)} steps"
    return [
        Workload("W5", f"TextCraft as sent, {played}", calls, grows=True),
        Workload("W5", f"TextCraft distinct, {played}", tuple(map(_distinct, calls)), grows=True),
    ]


def textcraft_load(episodes: int) -> Load:
    """Returns the same episodes as one ``/rank_actions`` a step, equal proposals included."""
    _, decisions = record(episodes)
    case = f"TextCraft as sent, {episodes} episodes, {len(decisions)} requests"
    return Load("W5", case, "/rank_actions", tuple({"items": [_item(decision)]} for decision in decisions))


def record(episodes: int) -> tuple[Renderer, list[Decision]]:
    """Plays the episodes; returns the renderer that the choosing model used, and all decisions."""
    goals = longest_goals(episodes)
    renderer = Renderer(build_tokenizer(_texts(goals)), TEMPLATE)
    recorder = Recorder(BestPromise(Critic(random_model(judge_config()), renderer, RECIPE).action_promises))
    act(goals, TextCraft, NoisyPlanner(), recorder, proposals=PROPOSALS, episodes=1, seed=0)
    return renderer, recorder.decisions


def _call(renderer: Renderer, decision: Decision) -> Call:
    history = renderer.state(decision.state)
    return last_reads([history.token_ids + action for action in renderer.actions(decision.proposed, history)])


def _item(decision: Decision) -> Body:
    return {**asdict(decision.state), "candidates": decision.proposed}


def _distinct(call: Call) -> Call:
    return last_reads([list(ids) for ids in dict.fromkeys(map(tuple, call.token_ids))])


def longest_goals(count: int) -> list[Goal]:
    """Returns the train goals with the largest budgets."""
    goals = list(train_goals())
    random.Random(0).shuffle(goals)
    return sorted(goals, key=budget, reverse=True)[:count]


def _texts(goals: Sequence[Goal]) -> list[str]:
    """Returns texts with every word of the environment: recipes, items, tasks and replies."""
    book = load_recipes()
    commands = [recipe.command for recipe in book.recipes.values()]
    tasks = [TextCraft(goal, seed=0).reset().task for goal in goals]
    replies = "Got Crafted Could not execute find enough items to a valid recipe for left Inventory You are carrying"
    return [*commands, *book.base_items, *tasks, replies, "anything inventory", " ".join(map(str, range(100)))]
