"""Renders an item to token ids, the positions at which a score is read, and a key for each score."""

from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from agentprm.errors import TooLong
from agentprm.types import Conversation, Message, State, Trajectory
from model_store.text.conversations import action_text, as_state, as_trajectory
from model_store.text.renderer import Rendered, Renderer
from model_store.text.runs import TooManyTokens
from service.score_cache.keys import Key, KeyScope
from service.scoring.continued import Continued
from service.scoring.source import distinct


class KeyedSequence(NamedTuple):
    """Token ids [T], read positions [R] and the keys of the scores there [R]. The last read is at the last token.

    ``unknown`` of the tokens stand for text outside the tokenizer's vocabulary.
    """

    token_ids: Sequence[int]
    reads: list[int]
    keys: list[Key]
    unknown: int = 0

    def without(self, known: Container[Key]) -> "KeyedSequence | None":
        """Drops the reads whose scores are known, and the tokens after the last other read; None if none is left."""
        unknown = [(read, key) for read, key in zip(self.reads, self.keys, strict=True) if key not in known]
        if not unknown:
            return None
        reads, keys = map(list, zip(*unknown, strict=True))
        whole = reads[-1] == self.reads[-1]
        return KeyedSequence(self.token_ids if whole else self.token_ids[: reads[-1] + 1], reads, keys)


class Sequencer(Protocol):
    """Renders for one model as it is served. It keeps no state of an item: any thread may call it at any time.

    Implemented for templates of texts around segments and for chat templates.
    """

    @property
    def context_length(self) -> int:
        """Most tokens of a sequence."""
        ...

    @property
    def renders_anew(self) -> bool:
        """Whether each score takes a rendering of the whole history."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text on its own; of a text that is longer than the context one more than that holds."""
        ...

    def trajectory(self, history: Trajectory | Conversation, reads: int | None) -> list[KeyedSequence]:
        """The sequences with the last ``reads`` steps' scores, in the order of the steps; None: with all of them.

        Raises:
            TooLong: a sequence has more tokens than the model reads.
            Unrenderable: the template has no place for the history.
        """
        ...

    def candidates(self, state: State | Conversation, candidates: Sequence[str | Message]) -> list[KeyedSequence]:
        """The sequences that read the step before, if there is one, and then each distinct candidate.

        Raises as ``trajectory``.
        """
        ...


class TextSequencer:
    """Implements ``Sequencer`` for templates of texts around segments: a trajectory is one sequence.

    Args:
        renderer: makes token ids of texts.
        scope: makes the keys of the model's scores.
        context_length: most tokens of a sequence.
    """

    renders_anew: Final = False

    def __init__(self, renderer: Renderer, scope: KeyScope, *, context_length: int) -> None:
        self._renderer = renderer
        self._scope = scope
        self._context_length = context_length

    @property
    def context_length(self) -> int:
        return self._context_length

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._renderer.count_tokens(texts, self._context_length)

    def trajectory(self, history: Trajectory | Conversation, reads: int | None) -> list[KeyedSequence]:
        """One sequence, read at the last ``reads`` step ends; None: at every step end."""
        try:
            rendered = self._renderer.trajectory(as_trajectory(history), self._context_length)
        except TooManyTokens as error:
            raise too_long(error.tokens, self._context_length) from error
        token_ids, task_len, step_ends, _ = rendered
        ends = step_ends if reads is None else step_ends[-reads:]
        chain, keys, done = self._scope.begin(token_ids[:task_len]), [], task_len
        for end in ends:
            keys.append(chain.extend(token_ids[done : end + 1]).key)
            done = end + 1
        return [KeyedSequence(token_ids, ends, keys, self._renderer.count_unknown(token_ids))]

    def candidates(self, state: State | Conversation, candidates: Sequence[str | Message]) -> list[KeyedSequence]:
        """One sequence per distinct candidate; the first also reads the step before, which all of them share."""
        rendered, proposed = self._rendered(as_state(state), candidates)
        history, task_len, step_ends, _ = rendered
        chain, before, keys, done = self._scope.begin(history[:task_len]), step_ends[-1:], [], task_len
        if before:
            done = before[0] + 1
            keys = [chain.extend(history[task_len:done]).key]
        chain.extend(history[done:])
        unknown = self._renderer.count_unknown(history)
        sequences: list[KeyedSequence] = []
        for action in proposed:
            token_ids, key = Continued(history, action), chain.branch().extend(action).key
            unknown_here = unknown + self._renderer.count_unknown(action)
            sequences.append(KeyedSequence(token_ids, [*before, len(token_ids) - 1], [*keys, key], unknown_here))
            before, keys = [], []
        return sequences

    def _rendered(self, state: State, candidates: Sequence[str | Message]) -> tuple[Rendered, list[list[int]]]:
        """The history's tokens and those of each action. An error names the candidate that is too long with it."""
        actions = distinct(candidates)
        known, proposed = 0, list[list[int]]()
        try:
            rendered = self._renderer.state(state, self._context_length)
            known = len(rendered.token_ids)
            for token_ids in self._action_ids(list(map(action_text, actions)), rendered, self._context_length - known):
                proposed.append(token_ids)
        except TooManyTokens as error:
            index = candidates.index(actions[len(proposed)])
            raise too_long(known + error.tokens, self._context_length, candidate=index) from error
        return rendered, proposed

    def _action_ids(self, actions: Sequence[str], after: Rendered, room: int) -> Iterator[list[int]]:
        """The tokens of each action: of all at once, which is faster, unless one has no ``room``."""
        with suppress(TooManyTokens):
            together = self._renderer.actions(actions, after, room * len(actions))
            if all(len(token_ids) <= room for token_ids in together):
                yield from together
                return
        for action in actions:
            yield from self._renderer.actions([action], after, room)


def too_long(tokens: int, limit: int, **where: int) -> TooLong:
    """The refusal of an item with ``tokens`` or more."""
    return TooLong(
        f"an item has at least {tokens} tokens, the model reads {limit}",
        details={**where, "tokens": tokens, "limit": limit},
    )
