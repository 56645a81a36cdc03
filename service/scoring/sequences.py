"""Renders items to token ids, the positions at which a score is read, and a key for each score."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from agentprm.errors import TooLong
from agentprm.types import State, Trajectory
from model_store.text.renderer import Renderer
from service.score_cache.keys import Key, KeyScope
from service.scoring.source import distinct


class KeyedSequence(NamedTuple):
    """Token ids [T], read positions [R] and the keys of the scores there [R]. The last read is at the last token."""

    token_ids: list[int]
    reads: list[int]
    keys: list[Key]

    def without(self, known: Container[Key]) -> "KeyedSequence | None":
        """Drops the reads whose scores are known, and the tokens after the last other read; None if none is left."""
        unknown = [(read, key) for read, key in zip(self.reads, self.keys, strict=True) if key not in known]
        if not unknown:
            return None
        reads, keys = map(list, zip(*unknown, strict=True))
        return KeyedSequence(self.token_ids[: reads[-1] + 1], reads, keys)


class Sequencer:
    """Renders for one model as it is served. Not thread-safe: one call at a time.

    Args:
        renderer: makes token ids of texts.
        scope: makes the keys of the model's scores.
        context_length: most tokens of a sequence.
    """

    def __init__(self, renderer: Renderer, scope: KeyScope, *, context_length: int) -> None:
        self._renderer = renderer
        self._scope = scope
        self._context_length = context_length

    def trajectories(self, trajectories: Sequence[Trajectory], reads: int | None) -> list[list[KeyedSequence]]:
        """One sequence per item, read at the last ``reads`` step ends; None: at every step end.

        Raises:
            TooLong: an item has more tokens than the model reads.
        """
        items = []
        for index, trajectory in enumerate(trajectories):
            token_ids, task_len, step_ends, _ = self._renderer.trajectory(trajectory)
            self._refuse_too_long(len(token_ids), {"item": index})
            ends = step_ends if reads is None else step_ends[-reads:]
            chain, keys, done = self._scope.begin(token_ids[:task_len]), [], task_len
            for end in ends:
                keys.append(chain.extend(token_ids[done : end + 1]).key)
                done = end + 1
            items.append([KeyedSequence(token_ids, ends, keys)])
        return items

    def candidates(self, states: Sequence[State], candidates: Sequence[Sequence[str]]) -> list[list[KeyedSequence]]:
        """One sequence per distinct candidate; the first also reads the step before, which all of them share.

        Raises:
            TooLong: a candidate after its history has more tokens than the model reads.
        """
        return [
            self._proposals(index, state, proposed)
            for index, (state, proposed) in enumerate(zip(states, candidates, strict=True))
        ]

    def _proposals(self, index: int, state: State, proposed: Sequence[str]) -> list[KeyedSequence]:
        rendered = self._renderer.state(state)
        history, task_len, step_ends, _ = rendered
        chain, before, keys, done = self._scope.begin(history[:task_len]), step_ends[-1:], [], task_len
        if before:
            done = before[0] + 1
            keys = [chain.extend(history[task_len:done]).key]
        chain.extend(history[done:])
        sequences: list[KeyedSequence] = []
        actions = distinct(proposed)
        for text, action in zip(actions, self._renderer.actions(actions, rendered), strict=True):
            token_ids = history + action
            self._refuse_too_long(len(token_ids), {"item": index, "candidate": proposed.index(text)})
            end, key = len(token_ids) - 1, chain.branch().extend(action).key
            sequences.append(KeyedSequence(token_ids, [*before, end], [*keys, key]))
            before, keys = [], []
        return sequences

    def _refuse_too_long(self, tokens: int, where: dict[str, int]) -> None:
        if tokens > self._context_length:
            raise TooLong(
                f"an item has {tokens} tokens, the model reads {self._context_length}",
                details={**where, "tokens": tokens, "limit": self._context_length},
            )
