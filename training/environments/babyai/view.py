"""What the agent sees, as text: every visible object with its position relative to the agent.

The sentences are those of AgentGym's BabyAI (arXiv 2406.04151). Objects of equal names are numbered from near to far.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from minigrid.core.world_object import Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv

Place = tuple[int, int]
"""Column and row in the grid."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A visible object that is no wall. ``name`` ends in its number, such as ``red ball 1``."""

    name: str
    object: WorldObj
    place: Place
    ahead: int  # cells in front of the agent
    right: int  # cells to its right; negative: to its left

    @property
    def position(self) -> str:
        """Where it is, as the agent sees it."""
        if self.right == 0:
            return f"right in front of you {self.ahead} steps away"
        side = "right" if self.right > 0 else "left"
        return f"{self.ahead} steps in front of you and {abs(self.right)} steps to your {side}"


def visible_places(game: MiniGridEnv) -> Iterator[tuple[Place, int, int]]:
    """Yields every cell in sight but the agent's own, with the cells it is ahead and to the right."""
    _, mask = game.gen_obs_grid()  # type: ignore[no-untyped-call]
    size, front, side = game.agent_view_size, game.dir_vec, game.right_vec
    for i in range(size):
        for j in range(size):
            ahead, right = size - 1 - j, i - size // 2
            x, y = (int(at) for at in game.agent_pos + front * ahead + side * right)
            if mask[i, j] and (ahead or right) and 0 <= x < game.width and 0 <= y < game.height:
                yield (x, y), ahead, right


def visible_things(game: MiniGridEnv) -> list[Thing]:
    """Returns the objects in sight, from near to far."""
    seen = sorted(visible_places(game), key=lambda cell: (cell[1] + abs(cell[2]), cell))
    counts: Counter[str] = Counter()
    things = []
    for place, ahead, right in seen:
        found = game.grid.get(*place)
        if found is not None and found.type != "wall":
            name = kind_of(found)
            counts[name] += 1
            things.append(Thing(f"{name} {counts[name]}", found, place, ahead, right))
    return things


def kind_of(found: WorldObj) -> str:
    """Returns colour and type, and whether a door is open, closed or locked."""
    if not isinstance(found, Door):
        return f"{found.color} {found.type}"
    state = "open" if found.is_open else "locked" if found.is_locked else "closed"
    return f"{found.color} {state} door"


def describe(game: MiniGridEnv) -> str:
    """Returns the observation: objects in sight, what blocks the way, and what the agent carries."""
    listed = " ".join(f"There is a {thing.name} {thing.position}." for thing in visible_things(game))
    seen = f"You can see: {listed}" if listed else "You cannot see any objects within sight."
    held: WorldObj | None = game.carrying
    carried = f"You are carrying a {kind_of(held)}." if held else "You are not carrying anything."
    return f"{seen} {_barrier(game)}{carried}"


def _barrier(game: MiniGridEnv) -> str:
    for place, ahead, _ in sorted((cell for cell in visible_places(game) if cell[2] == 0), key=lambda cell: cell[1]):
        found = game.grid.get(*place)
        if found is not None and not found.can_overlap():
            return f"You are facing a {found.type} {ahead} steps away. "
    return ""
