"""Value types that every package shares: steps, trajectories, states, chats, and the score of a step."""

from dataclasses import dataclass
from typing import Literal

Overflow = Literal["error", "drop_oldest", "shorten_observations"]
"""What becomes of a history that has more tokens than the model reads."""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn, verbatim.

    ``observation`` (o_t) is what the environment showed, empty if it showed nothing. ``action`` (a_t) is what the agent
    then did or said, its thought included; the service refuses an empty one.
    """

    observation: str
    action: str


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A task and its steps in order; the episode may go on after the last.

    A trajectory without steps can be built, but has nothing to score: the client raises InvalidRequest.
    """

    task: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """Everything the agent knows when it chooses its next action (s_t).

    ``steps`` are the finished ones. ``observation`` is the current one, which no action has followed yet.
    """

    task: str
    steps: tuple[Step, ...] = ()
    observation: str = ""

    def take(self, action: str) -> Trajectory:
        """The trajectory in which the agent takes ``action`` here."""
        return Trajectory(self.task, (*self.steps, Step(self.observation, action)))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. ``arguments`` is the text that the model wrote, JSON as a rule."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    ``content`` is a text, the texts of its parts, or None if the turn has none. ``reasoning`` is what the model thought
    before it spoke, as far as it stands apart from ``content``.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[str, ...] | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return "".join(self.content) if isinstance(self.content, tuple) else self.content or ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat with its roles. Each assistant turn is an action; tool turns stand in the order of their calls.

    ``tools`` are the definitions of the tools that the agent may call, each as JSON text. With ``include_reasoning`` a
    template that has no place for reasoning refuses turns that have some; else it leaves it out.
    """

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    include_reasoning: bool = False

    @property
    def step_ends(self) -> list[int]:
        """The number of turns up to and with each assistant turn."""
        return [end for end, message in enumerate(self.messages, start=1) if message.role == "assistant"]

    def take(self, action: Message) -> "Conversation":
        """The chat in which the agent says ``action`` next."""
        return self.until(len(self.messages), action)

    def until(self, end: int, *more: Message) -> "Conversation":
        """The first ``end`` turns, and ``more`` after them."""
        return Conversation((*self.messages[:end], *more), self.tools, self.include_reasoning)


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
    """Tokens of one item by where their scores came from.

    ``computed`` went through the model, ``prefix_cache`` had their keys and values on the device, and the scores of
    ``score_cache`` were known already. ``tokens`` is the sum of the three. ``unknown`` of them stand for text that the
    model's tokenizer has no tokens for. ``dropped_steps`` and ``cut_tokens`` are not among them: they were cut from a
    history that was too long.
    """

    tokens: int
    computed: int
    prefix_cache: int = 0
    score_cache: int = 0
    unknown: int = 0
    dropped_steps: int = 0
    cut_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.tokens + other.tokens,
            self.computed + other.computed,
            self.prefix_cache + other.prefix_cache,
            self.score_cache + other.score_cache,
            self.unknown + other.unknown,
            self.dropped_steps + other.dropped_steps,
            self.cut_tokens + other.cut_tokens,
        )
