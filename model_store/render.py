"""Trajectory -> token ids, prefix-stable by construction.

Each segment (task, observation, action) is tokenised on its own and the ids are joined with those of the template's
boundaries, never the joined text: the tokens of a trajectory are then a prefix of the tokens of every longer one, and
a candidate's tokens do not depend on the history before it. Special tokens are recognised in boundaries only; in an
agent's text they are ordinary characters, so an observation cannot end an action.
"""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from agentprm.errors import CheckpointCorrupt, ManifestInvalid
from agentprm.types import State, Trajectory
from model_store.manifest import Template
from model_store.store import Checkpoint

KEPT_CHARS: Final = 2_000_000
"""Of segments whose ids are kept: 20 MB at four characters a token, 80 MB at one."""
SEGMENT_CHARS: Final = 64
"""What a segment counts beside its text, so that many short ones are bounded too."""


class Rendered(NamedTuple):
    """Token ids; how many of them come before the first observation; the index of each action's last token.

    That last token is where the step's score is read.
    """

    token_ids: list[int]
    task_len: int
    step_ends: list[int]


class Boundary(NamedTuple):
    before: list[int]
    after: list[int]


class Renderer:
    """Renders with one tokenizer and one template; safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = False
        self._begin = _boundary_ids(tokenizer, template.begin)
        self._task, self._observation, self._action = (
            Boundary(_boundary_ids(tokenizer, before), _boundary_ids(tokenizer, after))
            for before, after in (template.task, template.observation, template.action)
        )
        if not self._action.after:
            raise ManifestInvalid("template.action: its second text has no tokens, so an action would have no end")
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._segments: OrderedDict[str, list[int]] = OrderedDict()
        self._segment_chars = 0
        self._lock = Lock()

    def trajectory(self, trajectory: Trajectory) -> Rendered:
        """The whole trajectory, up to the end of its last action."""
        token_ids, step_ends = list(self._begin), list[int]()
        texts = [trajectory.task, *(text for step in trajectory.steps for text in (step.observation, step.action))]
        task, *segments = self._encode(texts)
        _append(token_ids, self._task, task)
        task_len = len(token_ids)
        for observation, action in zip(segments[::2], segments[1::2], strict=True):
            _append(token_ids, self._observation, observation)
            _append(token_ids, self._action, action)
            step_ends.append(len(token_ids) - 1)
        return Rendered(token_ids, task_len, step_ends)

    def state(self, state: State) -> Rendered:
        """Everything before the next action: ``state(s).token_ids + action(a) == trajectory(s.take(a)).token_ids``."""
        rendered = self.trajectory(Trajectory(state.task, state.steps))
        _append(rendered.token_ids, self._observation, self._encode([state.observation])[0])
        return rendered

    def action(self, action: str) -> list[int]:
        """The tokens an action adds to its state; the last one is its step end."""
        return self.actions([action])[0]

    def actions(self, actions: Sequence[str]) -> list[list[int]]:
        """``action`` of each."""
        return [[*self._action.before, *ids, *self._action.after] for ids in self._encode(actions)]

    def observation(self, observation: str) -> list[int]:
        """The tokens an observation adds to the steps before it."""
        return [*self._observation.before, *self._encode([observation])[0], *self._observation.after]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. Agents send their history with every step, so what was met lately is only looked up."""
        with self._lock:
            ids = {text: self._segments[text] for text in texts if text in self._segments}
            for text in ids:
                self._segments.move_to_end(text)
        if new := [text for text in dict.fromkeys(texts) if text not in ids]:
            encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
            self._keep(found := dict(zip(new, (encoding.ids for encoding in encodings), strict=True)))
            ids |= found
        return [ids[text] for text in texts]

    def _keep(self, found: dict[str, list[int]]) -> None:
        with self._lock:
            for text, ids in found.items():
                if text not in self._segments:
                    self._segments[text] = ids
                    self._segment_chars += len(text) + SEGMENT_CHARS
            while self._segment_chars > KEPT_CHARS:
                text, _ = self._segments.popitem(last=False)
                self._segment_chars -= len(text) + SEGMENT_CHARS


def load_renderer(checkpoint: Checkpoint) -> Renderer:
    """The renderer of a checkpoint, from its ``tokenizer.json`` and its manifest's template.

    Raises:
        CheckpointCorrupt: no readable ``tokenizer.json``.
        ManifestInvalid: the template's boundary text does not fit the tokenizer.
    """
    path = checkpoint.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise CheckpointCorrupt(f"{checkpoint.manifest.reference}: tokenizer.json cannot be read: {error}") from error
    return Renderer(tokenizer, checkpoint.manifest.template)


def _append(token_ids: list[int], boundary: Boundary, ids: list[int]) -> None:
    token_ids += boundary.before
    token_ids += ids
    token_ids += boundary.after


def _boundary_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids) if text else []
