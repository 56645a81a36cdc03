"""Trajectory to token ids, prefix-stable by construction.

The text is cut at every special token of the template, behind the task and at every action's end. Each run between two
cuts is tokenised on its own, so the tokens up to an action's end are a prefix of the tokens of every longer trajectory.
Special tokens are recognised in the template only. In an agent's text they are ordinary characters, so an observation
cannot end an action.
"""

from collections.abc import Sequence
from itertools import accumulate, chain, islice, pairwise
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from agentprm.types import State, Trajectory
from model_store.errors import CheckpointCorrupt, ManifestInvalid
from model_store.format.store import Checkpoint
from model_store.format.template import Template
from model_store.text.runs import UNLIMITED, Parts, Place, Run, RunTokenizer, TooManyTokens, Unrenderable
from model_store.text.tokenizer_file import load_tokenizer

EMPTY: Final = Run("", Place.ALONE)
TOKEN_CHARS: Final = 64
"""Characters of an action that must hold a token if the action has one."""


class Rendered(NamedTuple):
    """Token ids, the number of them that belong to the task alone, and the index of each action's last token.

    The score of a step is read at its last token; padding at an action's end does not count. ``rest`` is text that is
    not tokenised yet, because it is tokenised together with the text that follows.
    """

    token_ids: list[int]
    task_len: int
    step_ends: list[int]
    rest: Run = EMPTY


class _Segment(NamedTuple):
    """Template texts around a segment; if ``together``, the segment is tokenised with them, else on its own."""

    before: Parts
    after: Parts
    together: bool


class _RunBuilder:
    """Runs and token ids in order; the text since the last cut can still grow."""

    __slots__ = ("items", "place", "text")

    def __init__(self, rest: Run = EMPTY) -> None:
        self.items: list[Run | list[int]] = []
        self.text, self.place = rest

    def add(self, segment: _Segment, text: str) -> None:
        self.put(segment.before)
        if segment.together:
            self.text += text
        else:
            self.cut()
            self.items.append(Run(text, Place.ALONE))
        self.put(segment.after)

    def put(self, parts: Parts) -> None:
        for part in parts:
            if isinstance(part, str):
                self.text += part
            else:
                self.cut()
                self.items.append(part)
                self.place = Place.AFTER_SPECIAL

    def cut(self) -> int:
        """Ends the run, so that later text is tokenised without it. Returns the number of items before the cut."""
        if self.text:
            self.items.append(Run(self.text, self.place))
            self.text, self.place = "", Place.WITHIN
        return len(self.items)


class Renderer:
    """Renders with one tokenizer and one template; safe to call from several threads.

    Given ``max_tokens``, rendering stops with TooManyTokens soon after the tokens are more than that. So a text that is
    too long costs about as much as the longest that is not, and one of its runs at most.

    Args:
        tokenizer: makes token ids of texts.
        template: the text around segments.
        pad_token_id: a token at which no step is read; an action ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template, pad_token_id: int | None = None) -> None:
        self.pad_token_id = pad_token_id
        self._runs = RunTokenizer(tokenizer)
        self._template = template
        kinds = {"segments": (False, False), "steps": (True, False), "text": (True, True)}
        task_together, self._together = kinds[template.tokenise]
        self._begin, self._next = self._parts(template.begin, task_together), self._parts(template.next, self._together)
        self._task = self._segment(template.task, task_together)
        self._observation = self._segment(template.observation, self._together)
        self._action = self._segment(template.action, self._together)
        end_ids = self._end_ids()
        if template.action[1] and not end_ids:
            raise ManifestInvalid("template.action: its second text has no tokens, so an action would have no end")
        self._needs_text = set(end_ids) <= {pad_token_id} or self._joins_whitespace(template)

    def _joins_whitespace(self, template: Template) -> bool:
        """Whether an empty action would leave whitespace around it that its authors trim or tokenise as one."""
        joined = self._together and template.strip and not template.action[0]
        return joined and (template.action[1].isspace() or template.strip_task is not None)

    def count_unknown(self, token_ids: Sequence[int]) -> int:
        """The tokens that stand for text outside the tokenizer's vocabulary; 0 if it has none for such text."""
        unknown = self._runs.unknown_id
        return 0 if unknown is None else token_ids.count(unknown)

    def count_tokens(self, texts: Sequence[str], max_tokens: int) -> list[int]:
        """The tokens of each text on its own, ``max_tokens + 1`` if it has more."""
        runs = [Run(self._template.stripped(text), Place.ALONE) for text in texts]
        return self._runs.count(runs, max_tokens)

    def refuse_too_few_rows(self, rows: int) -> None:
        """Checks that every token id that a text can produce is below ``rows``, the size of the embedding.

        Raises:
            CheckpointCorrupt: a text could become a token without a row.
        """
        boundaries = [self._begin, self._next]
        boundaries += [parts for segment in (self._task, self._observation, self._action) for parts in segment[:2]]
        in_template = (index for parts in boundaries for part in parts if isinstance(part, list) for index in part)
        largest = max(self._runs.largest_id, *in_template, 0)
        if largest >= rows:
            raise CheckpointCorrupt(f"the tokenizer has a token {largest} and the embedding only {rows} rows")

    def trajectory(self, trajectory: Trajectory, max_tokens: int = UNLIMITED) -> Rendered:
        """Token ids of the whole trajectory, up to the end of its last action.

        Raises:
            TooManyTokens: there are more than ``max_tokens``.
            Unrenderable: an action has no token to read a score at.
        """
        builder, task_items, end_items = self._build(trajectory, max_tokens)
        rendered = self._rendered(builder, task_items, end_items, max_tokens)
        if self.pad_token_id is None or not rendered.step_ends:
            return rendered
        return rendered._replace(token_ids=rendered.token_ids[: rendered.step_ends[-1] + 1])

    def state(self, state: State, max_tokens: int = UNLIMITED) -> Rendered:
        """Token ids of everything before the next action; ``actions`` returns those that follow.

        Raises:
            TooManyTokens: there are more than ``max_tokens``.
            Unrenderable: an action has no token to read a score at.
        """
        builder, task_items, end_items = self._build(Trajectory(state.task, state.steps), max_tokens)
        if state.steps:
            builder.put(self._next)
        self._observe(builder, state.observation)
        return self._rendered(builder, task_items, end_items, max_tokens)

    def actions(self, actions: Sequence[str], after: Rendered, max_tokens: int = UNLIMITED) -> list[list[int]]:
        """The token ids that each action adds to its state, [actions][tokens]; the last is its step end.

        ``state(s).token_ids + actions([a], state(s))[0] == trajectory(s.take(a)).token_ids``

        Raises:
            TooManyTokens: all actions together have more than ``max_tokens``. Those of the state do not count.
            Unrenderable: an action has no token to read a score at.
        """
        builders = [_RunBuilder(after.rest) for _ in actions]
        for builder, action in zip(builders, actions, strict=True):
            self._act(builder, action)
        added = [list(chain.from_iterable(ids)) for ids in self._ids(builders, max_tokens)]
        return [ids[: self._read(ids, 0, len(ids) - 1) + 1] for ids in added]

    def _build(self, trajectory: Trajectory, max_tokens: int) -> tuple[_RunBuilder, int, list[int]]:
        """The runs of a trajectory, and the numbers of its items up to the task's end and up to each action's end."""
        if len(trajectory.steps) > max_tokens:  # every step ends in a token
            raise TooManyTokens(len(trajectory.steps))
        builder, ends = _RunBuilder(), list[int]()
        builder.put(self._begin)
        task_items = self._begin_task(builder, trajectory.task, max_tokens)
        for index, step in enumerate(trajectory.steps):
            if index:
                builder.put(self._next)
            self._observe(builder, step.observation)
            ends.append(self._act(builder, step.action))
        return builder, task_items, ends

    def _begin_task(self, builder: _RunBuilder, task: str, max_tokens: int) -> int:
        """Cuts after the task, so that its tokens are the same whatever follows; returns the number of items so far.

        A task that is tokenised together with what follows is cut behind the token that it ends in: a newline may be
        part of the same token as its last full stop.
        """
        before, after, together = self._task
        builder.add(_Segment(before, [], together), self._template.stripped_task(task))
        if not self._together:
            builder.put(after)
            return builder.cut()
        following = after[0] if after and isinstance(after[0], str) else ""
        joined, end = builder.text + following, len(builder.text)
        if following:
            end = self._runs.token_end(Run(joined, builder.place), end, max_tokens)
        builder.text = joined[:end]
        items = builder.cut()
        builder.put([joined[end:], *after[bool(following) :]])
        return items

    def _observe(self, builder: _RunBuilder, observation: str) -> None:
        text = self._template.stripped(observation)
        if text or not self._template.skip_empty_observation:
            builder.add(self._observation, text)

    def _act(self, builder: _RunBuilder, action: str) -> int:
        text = self._template.stripped(action)
        if self._needs_text and not self._has_token(text):
            raise Unrenderable("an action is empty, and this checkpoint reads a step's score at a token of its action")
        builder.add(self._action, text)
        return builder.cut()

    def _has_token(self, text: str) -> bool:
        """Whether any token of a text can be read. A letter always has one, and a control character often none."""
        if any(map(str.isalnum, text)):
            return True
        (ids,) = self._runs.encode([Run((text.strip() or text)[:TOKEN_CHARS], Place.WITHIN)])
        return not set(ids) <= {self.pad_token_id}

    def _read(self, token_ids: Sequence[int], begin: int, end: int) -> int:
        """The place of the last token from ``begin`` to ``end`` that is no padding."""
        if self.pad_token_id is None:
            return end
        while end >= begin and token_ids[end] == self.pad_token_id:
            end -= 1
        if end < begin:
            raise Unrenderable(f"an action has no token but {self.pad_token_id}, which the checkpoint calls padding")
        return end

    def _end_ids(self) -> list[int]:
        """The token ids of the text after an action, tokenised on its own."""
        end = _RunBuilder(Run("", Place.WITHIN))
        end.put(self._action.after)
        end.cut()
        return list(chain.from_iterable(self._ids([end], UNLIMITED)[0]))

    def _rendered(self, builder: _RunBuilder, task_items: int, end_items: Sequence[int], max_tokens: int) -> Rendered:
        (ids,) = self._ids([builder], max_tokens)
        lens = [0, *accumulate(map(len, ids))]
        token_ids, rest = list(chain.from_iterable(ids)), Run(builder.text, builder.place)
        task_len, reads = lens[task_items], list[int]()
        for begin, end in pairwise([task_len, *(lens[items] for items in end_items)]):
            reads.append(self._read(token_ids, begin, end - 1))
        return Rendered(token_ids, task_len, reads, rest)

    def _ids(self, builders: Sequence[_RunBuilder], max_tokens: int) -> list[list[list[int]]]:
        """Token ids [builders][items][tokens]; all runs go to the tokenizer at once.

        Raises:
            TooManyTokens: all of them together are more than ``max_tokens``.
        """
        items = [item for builder in builders for item in builder.items]
        try:
            found = iter(self._runs.encode([item for item in items if isinstance(item, Run)], max_tokens))
        except TooManyTokens as error:
            special = sum(len(item) for item in items if not isinstance(item, Run))
            raise TooManyTokens(special + error.tokens) from error
        ids = [next(found) if isinstance(item, Run) else item for item in items]
        if (tokens := sum(map(len, ids))) > max_tokens:
            raise TooManyTokens(tokens)
        each = iter(ids)
        return [list(islice(each, len(builder.items))) for builder in builders]

    def _segment(self, texts: tuple[str, str], together: bool) -> _Segment:
        before, after = (self._parts(text, together) for text in texts)
        return _Segment(before, after, together)

    def _parts(self, text: str, together: bool) -> Parts:
        return self._runs.split(text) if together else self._runs.boundary(text)


def load_renderer(checkpoint: Checkpoint) -> Renderer:
    """The renderer of a checkpoint with a template of texts, from its ``tokenizer.json`` and its manifest.

    Raises:
        CheckpointCorrupt: no readable ``tokenizer.json``.
        ManifestInvalid: the template's boundary text does not fit the tokenizer, or there is none.
    """
    template = checkpoint.manifest.texts
    try:
        tokenizer = load_tokenizer(checkpoint.path)
    except CheckpointCorrupt as error:
        raise CheckpointCorrupt(f"{checkpoint.manifest.reference}: {error}") from error
    return Renderer(tokenizer, template, checkpoint.manifest.score.pad_token_id)
