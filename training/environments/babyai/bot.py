"""The package's bot under a watchdog, and its plan told as one of the text actions.

The bot knows the mission, remembers what it has seen, and accepts moves that it did not advise. In some levels it fails
an assertion (KeyInBox) or plans for ever (UnlockToUnlock); then it has no advice until the next move, when a new bot
begins from there.
"""

import copy
from collections.abc import Iterable
from typing import Final, SupportsInt

from minigrid.core.actions import Actions
from minigrid.core.world_object import Door
from minigrid.minigrid_env import MiniGridEnv
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError, Subgoal

from training.environments.babyai.actions import can_begin
from training.environments.babyai.view import Place, visible_things

_SUBGOALS: Final = 200  # that one replanning may add; those that end add fewer than ten
_LOOK_AHEAD: Final = 40  # moves
_WALKING: Final = {Actions.left: "turn left", Actions.right: "turn right", Actions.forward: "move forward"}


class _PlansForever(Exception):
    """Replanning added more subgoals than any plan needs."""


_FAILURES: Final = (_PlansForever, DisappearedBoxError, AssertionError)


class _Stack(list[Subgoal]):
    """The bot's subgoals; a replanning that never ends would append for ever."""

    allowed = _SUBGOALS

    def append(self, subgoal: Subgoal) -> None:
        if self.allowed == 0:
            raise _PlansForever
        self.allowed -= 1
        super().append(subgoal)


class WatchedBot:
    """Follows the moves made in ``game``. ``move`` is its next one; None: it has no advice."""

    def __init__(self, game: MiniGridEnv) -> None:
        self.game = game
        self.move: Actions | None = None
        self._bot: BabyAIBot | None = None
        self.follow(None)

    def follow(self, made: Actions | None) -> None:
        """Plans again after ``made``."""
        try:
            self.move = self._replan(made)
        except _FAILURES:
            self.move = self._bot = None

    def _replan(self, made: Actions | None) -> Actions | None:
        if self._bot is None:
            self._bot, made = BabyAIBot(self.game), None  # type: ignore[no-untyped-call]
        stack = self._bot.stack = _Stack(self._bot.stack)
        stack.allowed = _SUBGOALS
        move: Actions = self._bot.replan(made)  # type: ignore[no-untyped-call]
        return None if move == Actions.done else move

    def action(self) -> str | None:
        """Returns the text action that the next moves amount to, None without advice. Nothing is changed."""
        if self.move is None:
            return None
        visited, last = copy.deepcopy(self)._walk()  # noqa: SLF001  # its own twin
        for action in self._candidates(visited, last):
            if can_begin(self.game, action):
                return action
        return _WALKING.get(self.move, self.move.name)

    def _walk(self) -> tuple[list[Place], Actions | None]:
        """Walks to the end of the subgoal; returns the places entered, the one in front, and the next move."""
        visited: list[Place] = []
        subgoal = self._subgoal
        while self.move in _WALKING and self._subgoal is subgoal and len(visited) < _LOOK_AHEAD:
            if subgoal and subgoal.is_exploratory():  # type: ignore[no-untyped-call]  # its aim has no name yet
                break
            move = self.move
            over = self.game.step(move)[2]
            visited.append(_place(self.game.agent_pos))
            if over:
                self.move = None
                break
            self.follow(move)
        return [*visited, _place(self.game.front_pos)], self.move

    @property
    def _subgoal(self) -> Subgoal | None:
        return self._bot.stack[-1] if self._bot and self._bot.stack else None

    def _candidates(self, visited: list[Place], last: Actions | None) -> list[str]:
        things = {thing.place: thing for thing in visible_things(self.game)}
        doors = [things[place] for place in visited[:-1] if place in things and isinstance(things[place].object, Door)]
        through = [f"go through {door.name}" for door in doors]
        end = things.get(visited[-1])
        if end is None:
            return through
        if last == Actions.pickup:
            return [f"pick up {end.name}", *through]
        if last == Actions.toggle:
            return [f"toggle and go through {end.name}", *through]
        return [f"go to {end.name}", *through]


def _place(position: Iterable[SupportsInt]) -> Place:
    x, y = position
    return int(x), int(y)
