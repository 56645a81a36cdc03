"""The contract of a source: it renders items to keyed questions and computes those whose scores are not known."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

from agentprm.errors import RequestError
from agentprm.types import Conversation, Message, Overflow, State, Trajectory, Usage
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.score_cache.keys import Key


class Question(Protocol):
    """One piece of work for a source's model: a token sequence or a judged step. Others read its keys only."""

    @property
    def keys(self) -> Sequence[Key]:
        """One key per score that answers it."""
        ...


Q = TypeVar("Q", bound=Question)


class ItemQuestions(NamedTuple, Generic[Q]):
    """The questions about one item, and what was cut from its history for them.

    ``apart`` are the places, among the item's scores, of steps that were read in another cut than the step before.
    """

    questions: Sequence[Q]
    dropped_steps: int = 0
    cut_tokens: int = 0
    apart: frozenset[int] = frozenset()


class Computed(NamedTuple):
    """The scores of one request that were not known, and the usage of all its scores.

    ``usages`` has one entry per question. ``queue`` and ``forward`` are seconds. ``failed`` are the errors of keys that
    got no score, where items may fail alone.
    """

    scores: dict[Key, float]
    usages: list[Usage]
    queue: float
    forward: float
    failed: Mapping[Key, RequestError] = MappingProxyType({})


class Source(Protocol[Q]):
    """One model as the scorer sees it: tokens through a batcher, or a judge through calls.

    Per item the keys of its questions, taken in order, are those of its scores in order: consecutive steps of a
    trajectory; or the step before the proposed actions, if there is one, and then each distinct action.
    """

    @property
    def alive(self) -> bool:
        """False once only a new process can score again."""
        ...

    @property
    def renders_anew(self) -> bool:
        """Whether each score takes a rendering of the whole history, as with a chat template."""
        ...

    def trajectory(
        self, history: Trajectory | Conversation, last: int | None, overflow: Overflow = "error"
    ) -> ItemQuestions[Q]:
        """Renders the questions about the ``last`` steps of a history; None: about every step.

        Called on the event loop for a short text, else on the tokenizer thread. Both may happen at once.

        Raises:
            TooLong: the item has more tokens than the model reads, also after the cut that ``overflow`` allows.
            Unrenderable: the checkpoint's template has no place for the history.
        """
        ...

    def candidates(
        self, state: State | Conversation, candidates: Sequence[str | Message], overflow: Overflow = "error"
    ) -> ItemQuestions[Q]:
        """Renders the questions about the candidates of a state. Called and raises as ``trajectory``."""
        ...

    async def compute(self, questions: Sequence[Q], known: Mapping[Key, float], terms: Terms) -> Computed:
        """Submits the questions whose scores are not ``known`` as one request.

        Raises:
            RequestError: the queue refuses the request, or its computation fails. With ``terms.per_item`` what
                concerns single scores is in ``failed`` instead.
        """
        ...

    def refuse_unless_open(self) -> None:
        """Raises NotReady before the start and after the end."""
        ...

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        """Raises Overloaded while the queue takes no more from this caller at this priority."""
        ...

    async def start(self) -> None:
        """Begins to compute, once a warm-up has succeeded. Raises RequestError."""
        ...

    async def close(self) -> None:
        """Refuses new requests and answers those that were admitted."""
        ...


def distinct(candidates: Sequence[str | Message]) -> list[str | Message]:
    """Candidates without repetitions: equal ones are scored once, so rounding cannot tell them apart."""
    return list(dict.fromkeys(candidates))
