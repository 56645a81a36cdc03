"""AgentGym's actions as moves of the ``minigrid`` package, found in what the agent sees."""

from collections import deque
from typing import Final

from minigrid.core.actions import Actions
from minigrid.core.constants import DIR_TO_VEC
from minigrid.core.world_object import Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv

from training.environments.babyai.view import Place, Thing, visible_places, visible_things

_SINGLE: Final = {
    "turn left": Actions.left,
    "turn right": Actions.right,
    "move forward": Actions.forward,
    "drop": Actions.drop,
    "toggle": Actions.toggle,
}
_ON_THINGS: Final = ("toggle and go through ", "go through ", "pick up ", "go to ")


class CannotAct(Exception):
    """An action that changes nothing; the message is the reply."""


def moves(game: MiniGridEnv, action: str) -> list[Actions]:
    """Returns the moves that an action stands for, at least one.

    Raises:
        CannotAct: it is none of the actions, or cannot be begun here.
    """
    if action in _SINGLE:
        return [_SINGLE[action]]
    verb = next((verb for verb in _ON_THINGS if action.startswith(verb)), None)
    if verb is None:
        raise CannotAct("The action is not recognized.")
    name = action.removeprefix(verb)
    thing = next((thing for thing in visible_things(game) if thing.name == name), None)
    if thing is None:
        raise CannotAct(f"You cannot {action}, as you do not see it.")
    return _moves_to(game, verb, thing)


def _moves_to(game: MiniGridEnv, verb: str, thing: Thing) -> list[Actions]:
    through = verb == "go through "
    ending = _ending(game, verb, thing)
    path = find_path(game, thing.place, onto=through)
    if path is None:
        raise CannotAct(f"You cannot {verb}{thing.name}, as there is no path leading to it.")
    if not path + ending:
        raise CannotAct("You are there already.")
    return path + ending


def _ending(game: MiniGridEnv, verb: str, thing: Thing) -> list[Actions]:
    """Returns the moves after the path; refuses what the agent can see to be in vain."""
    held: WorldObj | None = game.carrying
    door = thing.object if isinstance(thing.object, Door) else None
    if verb == "go to ":
        return []
    if verb == "pick up ":
        if held is not None:
            raise CannotAct(f"You cannot pick up {thing.name}, as you are carrying something.")
        if not thing.object.can_pickup():
            raise CannotAct(f"You cannot pick up {thing.name}.")
        return [Actions.pickup]
    if door is None:
        raise CannotAct(f"You cannot {verb}{thing.name}, as it is no door.")
    if verb == "go through ":
        if not door.is_open:
            raise CannotAct(f"You cannot go through {thing.name}, as it is closed. You should toggle it first.")
        return []
    if door.is_open:
        raise CannotAct(f"You cannot {verb}{thing.name}, as it is open.")
    if door.is_locked and not _fits(held, door):
        raise CannotAct(f"You cannot {verb}{thing.name}, as you are not carrying a key of its color.")
    return [Actions.toggle, Actions.forward]


def _fits(held: WorldObj | None, door: Door) -> bool:
    return held is not None and (held.type, held.color) == ("key", door.color)


def find_path(game: MiniGridEnv, goal: Place, *, onto: bool) -> list[Actions] | None:
    """Returns the fewest moves over free cells in sight to face ``goal`` or to stand on it; None if none do."""
    free = {place for place, _, _ in visible_places(game) if _is_free(game, place)}
    x, y = (int(at) for at in game.agent_pos)
    start = (x, y, int(game.agent_dir))
    paths: dict[tuple[int, int, int], list[Actions]] = {start: []}
    queue = deque([start])
    while queue:
        x, y, way = state = queue.popleft()
        front = (x + int(DIR_TO_VEC[way][0]), y + int(DIR_TO_VEC[way][1]))
        if ((x, y) if onto else front) == goal:
            return paths[state]
        following = [((x, y, (way - 1) % 4), Actions.left), ((x, y, (way + 1) % 4), Actions.right)]
        if front in free:
            following.insert(0, ((*front, way), Actions.forward))
        for after, move in following:
            if after not in paths:
                paths[after] = [*paths[state], move]
                queue.append(after)
    return None


def _is_free(game: MiniGridEnv, place: Place) -> bool:
    found = game.grid.get(*place)
    return found is None or found.can_overlap()


def available(game: MiniGridEnv) -> list[str]:
    """Returns every action that can be begun here, in a fixed order."""
    named = [verb + thing.name for thing in visible_things(game) for verb in _ON_THINGS]
    return [action for action in [*_SINGLE, *named] if can_begin(game, action)]


def can_begin(game: MiniGridEnv, action: str) -> bool:
    """Returns whether an action does something here, as far as the agent sees."""
    front = game.grid.get(*game.front_pos)
    if action == "move forward":
        return front is None or front.can_overlap()
    if action == "drop":
        held: WorldObj | None = game.carrying
        return held is not None and front is None
    if action == "toggle":
        return isinstance(front, Door) and (not front.is_locked or _fits(game.carrying, front))
    try:
        moves(game, action)
    except CannotAct:
        return False
    return True
