"""The contract of an engine: what it is asked, what it answers and what it may raise. Knows no torch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from agentprm.errors import AgentPRMError

Sequences = Sequence[Sequence[int]]

Scored = tuple[list[float], int]
"""A sequence's raw scores at its read positions, and how many of its tokens were computed now."""


class Engine(Protocol):
    def score(self, token_ids: Sequences, reads: Sequences) -> Sequence[Scored]:
        """In the caller's order. A sequence without reads is computed all the same.

        Raises:
            OutOfMemory: the batch is too large for the device.
            DeviceLost: nothing can be computed any more.
        """
        ...

    def extend_lens(self, token_ids: Sequences) -> list[int]:
        """Tokens still to be computed for each sequence if scored in this order: an estimate, asked from any thread."""
        ...


class SequenceScores(NamedTuple):
    """Raw scores at the read positions, and how many of the sequence's tokens were computed for it."""

    raw: list[float]
    computed: int


class DeviceLost(AgentPRMError):
    """The device cannot compute any more, and only a new process can use it again."""


class OutOfMemory(AgentPRMError):
    """The device has no room for this batch. What the engine held for later has been given up."""
