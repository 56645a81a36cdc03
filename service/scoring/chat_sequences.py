"""Sequences of chats that the checkpoint's own chat template renders.

The template may render a turn differently once others follow. So the score of each step has a rendering of its own, of
the chat up to that step. Where one is a prefix of the next, both are read in one sequence.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from time import thread_time
from typing import Final, TypeVar

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, State, Trajectory
from model_store.text.chat_renderer import ChatRenderer, merged
from model_store.text.conversations import as_conversation, as_message, task_length
from model_store.text.renderer import Renderer
from model_store.text.runs import TooManyTokens
from service.score_cache.keys import Key, KeyScope
from service.scoring.continued import Continued
from service.scoring.sequences import KeyedSequence, Sequencer, TextSequencer, too_long
from service.scoring.source import distinct

RENDERED_TURNS: Final = 250_000
"""Most turns that are rendered for one item. Each step's score needs those before it again."""
ITEM_SECONDS: Final = 10.0
"""Seconds of one core after which no further chat of an item is rendered. 250,000 turns take most templates 2 to 5 s;
those that look through the whole chat at every turn take minutes."""

T = TypeVar("T")


class ChatSequencer:
    """Implements ``Sequencer`` for chat templates.

    Args:
        renderer: makes token ids of chats.
        scope: makes the keys of the model's scores.
        context_length: most tokens of a sequence.
    """

    renders_anew: Final = True

    def __init__(self, renderer: ChatRenderer, scope: KeyScope, *, context_length: int) -> None:
        self._renderer = renderer
        self._scope = scope
        self._context_length = context_length

    @property
    def context_length(self) -> int:
        return self._context_length

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._renderer.count_tokens(texts, self._context_length)

    def trajectory(self, history: Trajectory | Conversation, reads: int | None) -> list[KeyedSequence]:
        """One sequence for all steps if the template is stable on this chat, else up to one for each step."""
        chat = self._conversation(history)
        ends = chat.step_ends
        ends = ends if reads is None else ends[-reads:]
        _refuse_too_much(sum(ends))
        self._token_ids(chat.until(ends[-1]))  # refuses a chat that is too long before the others are rendered
        chats = [self._token_ids(chat.until(end)) for end in _in_time(ends)]
        return self._merged(_task(chat), chats)

    def candidates(self, state: State | Conversation, candidates: Sequence[str | Message]) -> list[KeyedSequence]:
        """One sequence per distinct candidate; the step before is read in the first if that begins with it."""
        chat, actions = self._conversation(state), distinct(candidates)
        _refuse_too_much((len(chat.messages) + 1) * (len(actions) + 1))
        task, before = _task(chat), [self._token_ids(chat.until(end)) for end in chat.step_ends[-1:]]
        shared: list[int] | None = None
        sequences: list[KeyedSequence] = []
        for action in _in_time(actions):
            token_ids = self._candidate_ids(chat, action, candidates)
            if not sequences:
                sequences += self._merged(task, [*before, token_ids])
                continue
            shared = shared or _common(sequences[-1].token_ids, token_ids)
            sequences += self._merged(task, [token_ids])
            if token_ids[: len(shared)] == shared:
                sequences[-1] = sequences[-1]._replace(token_ids=Continued(shared, token_ids[len(shared) :]))
        return sequences

    def _conversation(self, history: Trajectory | State | Conversation) -> Conversation:
        return as_conversation(history, self._renderer.chat.observation)

    def _candidate_ids(
        self, chat: Conversation, action: str | Message, candidates: Sequence[str | Message]
    ) -> list[int]:
        """The tokens of a chat with a candidate. An error names the candidate that is too long with it."""
        try:
            return self._renderer.token_ids(chat.take(as_message(action)), self._context_length)
        except TooManyTokens as error:
            raise too_long(error.tokens, self._context_length, candidate=candidates.index(action)) from error

    def _token_ids(self, chat: Conversation) -> list[int]:
        try:
            return self._renderer.token_ids(chat, self._context_length)
        except TooManyTokens as error:
            raise too_long(error.tokens, self._context_length) from error

    def _merged(self, task: bytes, chats: Sequence[list[int]]) -> list[KeyedSequence]:
        sequences = list[KeyedSequence]()
        for token_ids, reads in merged(chats):
            chain, keys, done = self._scope.begin_text(task), list[Key](), 0
            for read in reads:
                keys.append(chain.extend(token_ids[done : read + 1]).key)
                done = read + 1
            sequences.append(KeyedSequence(token_ids, reads, keys, self._renderer.count_unknown(token_ids)))
        return sequences


def make_sequencer(renderer: Renderer | ChatRenderer, scope: KeyScope, *, context_length: int) -> Sequencer:
    """The sequencer for a renderer of either kind."""
    if isinstance(renderer, ChatRenderer):
        return ChatSequencer(renderer, scope, context_length=context_length)
    return TextSequencer(renderer, scope, context_length=context_length)


def _task(chat: Conversation) -> bytes:
    """A short name of a chat's task, which its keys share."""
    hashed = blake2b(digest_size=16)
    for message in chat.messages[: task_length(chat.messages)]:
        hashed.update(message.text.encode())
    return hashed.digest()


def _common(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The tokens with which both begin."""
    pairs = zip(first, second, strict=False)
    end = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
    return list(first[:end])


def _in_time(items: Iterable[T]) -> Iterator[T]:
    """The items, as long as this thread has not computed for too long since the first."""
    begun = thread_time()
    for item in items:
        if thread_time() - begun > ITEM_SECONDS:
            raise TooLong(
                f"rendering an item takes the checkpoint's chat template more than {ITEM_SECONDS:.0f} seconds: ask for "
                "fewer of its steps or candidates at once",
                details={"limit": ITEM_SECONDS},
            )
        yield item


def _refuse_too_much(turns: int) -> None:
    if turns > RENDERED_TURNS:
        raise TooLong(
            f"a chat template renders every step with all turns before it: {turns} turns in one item, "
            f"{RENDERED_TURNS} are allowed",
            details={"turns": turns, "limit": RENDERED_TURNS},
        )
