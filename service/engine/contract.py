"""The whole contract between the queue and an engine: requests, answers and errors. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from agentprm.errors import AgentPRMError

Sequences = Sequence[Sequence[int]]
"""One row of integers per sequence, of any lengths: token ids [B][T], or read positions [B][R]."""


class SequenceScores(NamedTuple):
    """The result for one sequence."""

    raw: list[float]
    """Raw score (before the activation) at each read position, in the order of ``reads``: [R]."""
    computed: int
    """Tokens of this sequence that were computed now. A token that several sequences of a batch share counts once."""


class Engine(Protocol):
    """One model, ready to score token ids. Knows neither texts nor requests.

    ``score`` is called from one thread, one call at a time; ``extend_lens`` from any thread, also during ``score``.
    """

    def score(self, token_ids: Sequences, reads: Sequences) -> Sequence[SequenceScores]:
        """Scores a batch: one result per sequence, in the caller's order.

        Args:
            token_ids: the sequences, each from the first token of its task on: [B][T], with T >= 1.
            reads: per sequence the positions to score, ascending and below T: [B][R]. With R = 0 the sequence is
                computed all the same, so that an engine that keeps prefixes holds it for the next call.

        Raises:
            OutOfMemory: the device has no room for this batch; smaller batches may still work.
            DeviceLost: this process can compute nothing any more.
            Unavailable: nothing can be computed now, but later.
        """
        ...

    def extend_lens(self, token_ids: Sequences) -> list[int]:
        """Estimates the tokens to be computed for each sequence, if they were scored now and in this order: [B]."""
        ...


class OutOfMemory(AgentPRMError):
    """The device has no room for this batch. The engine has already freed what it held for later requests."""


class DeviceLost(AgentPRMError):
    """The device cannot compute any more in this process. Only a new process can use it again."""


class Unavailable(AgentPRMError):
    """Nothing can be computed now: the last worker has ended and is being started again.

    ``retry_after`` is the number of seconds that this is expected to take.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Workers(Protocol):
    """The workers of one model, for probes and metrics; any thread may read them."""

    @property
    def running(self) -> int:
        """Number of workers that can compute now."""
        ...

    @property
    def down(self) -> int:
        """Number of workers that have ended and do not run again."""
        ...

    @property
    def restarts(self) -> int:
        """Number of times that a worker was started again."""
        ...

    @property
    def lost(self) -> bool:
        """True once no worker runs and none is started again."""
        ...
