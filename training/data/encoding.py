"""Rollouts in tokens, rendered as serving renders them, with the positions at which steps are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentprm.errors import AgentPRMError
from model_store.text.chat_renderer import ChatRenderer, ReadTokens
from model_store.text.loading import render
from model_store.text.renderer import Renderer
from model_store.text.runs import TooManyTokens, Unrenderable
from training.rollouts.rollout import Rollout

NAMED = 3
"""Trajectories that an error names."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One trajectory in tokens.

    ``rows`` are its token sequences: one that is read at every step where the template only ever appends, else one for
    each step that the template renders anew. ``name`` tells it from others in errors.
    """

    name: str
    rows: tuple[ReadTokens, ...]
    rollout: Rollout

    @property
    def steps(self) -> int:
        """The number of steps, which is that of reads."""
        return sum(len(row.reads) for row in self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row.token_ids) for row in self.rows]

    @property
    def outcome(self) -> float | None:
        """The terminal reward; None for a trajectory that a limit cut, which has no terminal step."""
        return None if self.rollout.truncated else self.rollout.outcome


class Encoding(NamedTuple):
    """Encoded trajectories in the order of their rollouts, and the names of those left out as too long."""

    examples: list[Encoded]
    too_long: list[str]


def encode(
    rollouts: Sequence[Rollout], renderer: Renderer | ChatRenderer, context_length: int, *, skip_too_long: bool = False
) -> Encoding:
    """Renders rollouts up to their last action. Those over ``context_length`` tokens are an error or left out.

    Raises:
        AgentPRMError: a rollout has no steps, no place in the template, or too many tokens; names the first ones.
    """
    encoding = Encoding([], [])
    for number, rollout in enumerate(rollouts, start=1):
        name = rollout.trajectory_id or f"trajectory {number}"
        try:
            rows = render(renderer, rollout.history, context_length)
        except TooManyTokens:
            encoding.too_long.append(name)
            continue
        except Unrenderable as error:
            raise AgentPRMError(f"{name} cannot be rendered: {error}") from error
        if not any(row.reads for row in rows):
            raise AgentPRMError(f"{name} has no step to learn from")
        encoding.examples.append(Encoded(name, tuple(rows), rollout))
    if encoding.too_long and not skip_too_long:
        raise AgentPRMError(
            f"{len(encoding.too_long)} of {len(rollouts)} trajectories have more than {context_length} tokens: "
            f"{named(encoding.too_long)}; shorten them, or leave them out (--skip-too-long)"
        )
    return encoding


def named(names: Sequence[str]) -> str:
    """Returns the first names and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
