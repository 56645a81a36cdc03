"""One attempt at a task as training data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentprm.types import Conversation, Trajectory


@dataclass(frozen=True, slots=True)
class Rollout:
    """One trajectory and what became of it.

    ``history`` ends in its last action. ``outcome`` is the terminal reward r(u, tau) in [0, 1]; only a ``truncated``
    trajectory, which a limit cut, may lack it. Attempts with the same ``query`` belong together: a split never parts
    them, and best-of-N chooses among them. ``observation`` is the reply to the last action, where it is known.

    ``continuations`` has the outcomes of the rollouts continued after each step, ``labels`` the given label of each
    step (None: it has none); both are empty where the source has none.
    """

    history: Trajectory | Conversation
    outcome: float | None
    truncated: bool
    query: str
    observation: str = ""
    trajectory_id: str | None = None
    continuations: tuple[tuple[float, ...], ...] = ()
    labels: tuple[float | None, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_chat(self) -> bool:
        """Whether the history is a chat, and no task with steps."""
        return isinstance(self.history, Conversation)

    @property
    def steps(self) -> int:
        """The number of actions."""
        if isinstance(self.history, Conversation):
            return len(self.history.step_ends)
        return len(self.history.steps)

    @property
    def trajectory(self) -> Trajectory:
        """The history of a rollout of task and steps. Raises TypeError for a chat."""
        if isinstance(self.history, Conversation):
            raise TypeError("a chat has no task and steps of its own; a checkpoint's renderer makes them")
        return self.history
