"""What an agent did, and what a step is worth: the value types every package shares."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One turn: what the environment showed (o_t) and what the agent then did or said (a_t), verbatim."""

    observation: str
    action: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A task and its ordered steps, finished or not."""

    task: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """s_t: everything the agent knows when it chooses its next action."""

    task: str
    steps: tuple[Step, ...] = ()
    observation: str = ""

    def take(self, action: str) -> Trajectory:
        """The trajectory in which the agent takes ``action`` here."""
        return Trajectory(self.task, (*self.steps, Step(self.observation, action)))


@dataclass(frozen=True, slots=True)
class StepScore:
    """The value of one step (AgentPRM, arXiv 2511.08325, eqs. 2 and 8).

    ``raw`` is the head's output before squashing, ``promise`` is Q(s_t, a_t) in [0, 1] and ``progress`` is
    promise_t - promise_{t-1}; the first step has no predecessor, so its progress is None.
    """

    promise: float
    progress: float | None
    raw: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the scores of one item came from, in tokens; ``tokens`` is the sum of the other three."""

    tokens: int
    computed: int
    prefix_cache: int = 0
    score_cache: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.tokens + other.tokens,
            self.computed + other.computed,
            self.prefix_cache + other.prefix_cache,
            self.score_cache + other.score_cache,
        )
