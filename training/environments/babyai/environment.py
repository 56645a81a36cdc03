"""BabyAI (Chevalier-Boisvert et al., arXiv 1810.08272) as text, in the manner of AgentGym's.

An action stands for several moves of the grid, such as the way to an object in sight. Unlike AgentGym's, the task names
the number of actions allowed, the outcome is 1 or 0, and a mission that says "then" keeps the word.
"""

import contextlib
import copy
import io
import random
from typing import Final

import gymnasium
import minigrid  # noqa: F401  # registers the levels
from minigrid.core.actions import Actions
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv

from agentprm.types import State
from training.environments.babyai.actions import CannotAct, available, moves
from training.environments.babyai.bot import WatchedBot
from training.environments.babyai.goals import Goal
from training.environments.babyai.view import Thing, describe, visible_things
from training.environments.base import Reply

RULES: Final = (
    "Accomplish the goal with actions: turn left, turn right, move forward, go to <object>, pick up <object>, drop, "
    "toggle, go through <door>, toggle and go through <door>. A locked door needs a key of its color."
)


class BabyAI:
    """One episode. The goal decides the world and the mission; the seed decides where the agent looks at first."""

    def __init__(self, goal: Goal, seed: int) -> None:
        self.goal = goal
        self.seed = seed
        self.reset()

    def reset(self) -> State:
        """Begins again and returns the task with the first observation."""
        game = _make(self.goal)
        game.agent_dir = random.Random(f"{self.goal.name} {self.seed}").randrange(4)
        self._bot = WatchedBot(game)
        self._left = self.goal.budget
        self._outcome = 0.0
        task = f"{RULES}\n\nYour goal: {game.mission}. Actions allowed: {self._left}."
        return State(task, observation=describe(game))

    def step(self, action: str) -> Reply:
        """Takes one action and replies; an action that cannot be begun counts too.

        Raises:
            ValueError: the episode is over.
        """
        if self.terminated:
            raise ValueError(f"the episode of {self.goal.name} is over: {action!r} came after its end")
        self._left -= 1
        try:
            self._make_moves(moves(self._game, action.strip()))
            observation = describe(self._game)
        except CannotAct as refusal:
            observation = str(refusal)
        return Reply(observation, self._outcome, self.terminated)

    def _make_moves(self, planned: list[Actions]) -> None:
        """Moves until a move changes nothing or ends the episode."""
        for move in planned:
            before = self.situation
            _, reward, over, _, _ = self._game.step(move)
            if over:
                self._left, self._outcome = 0, float(float(reward) > 0)
                return
            self._bot.follow(move)
            if self.situation == before:
                return

    def copy(self) -> "BabyAI":
        """Returns an episode in the same state that goes on independently."""
        return copy.deepcopy(self)

    @property
    def _game(self) -> MiniGridEnv:
        return self._bot.game

    @property
    def task_name(self) -> str:
        """The goal's level and layout."""
        return self.goal.name

    @property
    def outcome(self) -> float:
        """1 once the mission is accomplished, else 0."""
        return self._outcome

    @property
    def terminated(self) -> bool:
        """True once the mission is accomplished or has failed, or no action is left."""
        return self._left == 0

    @property
    def advice(self) -> str | None:
        """The bot's action here, None if it has none."""
        return self._bot.action()

    @property
    def available_actions(self) -> list[str]:
        """Every action that can be begun here, in a fixed order."""
        return available(self._game)

    @property
    def things(self) -> list[Thing]:
        """The objects in sight, from near to far."""
        return visible_things(self._game)

    @property
    def situation(self) -> str:
        """Where the agent is, what it carries and what is in front of it."""
        game = self._game
        held: WorldObj | None = game.carrying
        front = game.grid.get(*game.front_pos)
        return f"{game.agent_pos} {game.agent_dir} {held and held.encode()} {front and front.encode()}"


def _make(goal: Goal) -> MiniGridEnv:
    """Returns the world of a goal. The package counts moves too; here only actions are limited."""
    with contextlib.redirect_stdout(io.StringIO()):  # layouts that it rejects are printed
        version = gymnasium.make(f"BabyAI-{goal.level}-v0", disable_env_checker=True)
        version.reset(seed=goal.layout)
    game = version.unwrapped
    assert isinstance(game, MiniGridEnv)
    game.max_steps = 1_000_000
    return game
