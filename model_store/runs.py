"""Runs of text -> token ids, as they would come out of the whole text that they are a part of.

A tokenizer cuts its text at special tokens before it does anything else, so what stands between two of them can be
tokenised on its own and kept. What some tokenizers then put before a text (a space, a "▁") depends on where the run
stands; a ``Place`` says where.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from threading import Lock
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer

from agentprm.errors import ManifestInvalid
from model_store.manifest import shown

KEPT_CHARS: Final = 2_000_000
"""Of runs whose ids are kept: 20 MB at four characters a token, 80 MB at one."""
RUN_CHARS: Final = 64
"""What a run counts beside its text, so that many short ones are bounded too."""


class Place(Enum):
    ALONE = "alone"
    """A text of its own, or the beginning of one."""
    AFTER_SPECIAL = "after a special token"
    WITHIN = "within a text"


class Run(NamedTuple):
    text: str
    place: Place


class RunTokenizer:
    """One tokenizer, with the ids of the runs met lately; safe to call from several threads.

    Special tokens are recognised by ``boundary`` and ``split`` only: in a run they are ordinary characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizers = _by_place(tokenizer)
        self._added = {token.content: index for index, token in tokenizer.get_added_tokens_decoder().items()}
        self._greedy = {
            token.content for token in tokenizer.get_added_tokens_decoder().values() if token.lstrip or token.rstrip
        }
        self._kept: OrderedDict[Run, list[int]] = OrderedDict()
        self._kept_chars = 0
        self._lock = Lock()

    def boundary(self, text: str) -> list[int]:
        """The ids of a text of a template that stands on its own."""
        tokenizer = self._tokenizers[Place.ALONE]
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids if text else []
        tokenizer.encode_special_tokens = True
        return list(ids)

    def split(self, text: str) -> list[str | int]:
        """A text of a template as its special tokens, by id, and what stands between them.

        Raises:
            ManifestInvalid: a special token that takes whitespace beside it away, so that its neighbours matter.
        """
        if not self._added:
            return [text] if text else []
        longest_first = sorted(self._added, key=len, reverse=True)
        parts = [part for part in re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if part]
        if greedy := [part for part in parts if part in self._greedy]:
            raise ManifestInvalid(
                f"template: {shown(greedy[0])} takes whitespace beside it away, which no template can"
            )
        return [self._added.get(part, part) for part in parts]

    def encode(self, runs: Sequence[Run]) -> list[list[int]]:
        """The ids of each. Agents send their history with every step: what was met lately is only looked up."""
        with self._lock:
            ids = {run: self._kept[run] for run in runs if run in self._kept}
            for run in ids:
                self._kept.move_to_end(run)
        new = [run for run in dict.fromkeys(runs) if run not in ids]
        for place in Place:
            here = [run for run in new if run.place is place]
            if here:
                texts = [run.text for run in here]
                encodings = self._tokenizers[place].encode_batch_fast(texts, add_special_tokens=False)
                ids |= zip(here, (encoding.ids for encoding in encodings), strict=True)
        self._keep({run: ids[run] for run in new})
        return [ids[run] for run in runs]

    def _keep(self, found: dict[Run, list[int]]) -> None:
        with self._lock:
            for run, ids in found.items():
                if run not in self._kept:
                    self._kept[run] = ids
                    self._kept_chars += len(run.text) + RUN_CHARS
            while self._kept_chars > KEPT_CHARS:
                run, _ = self._kept.popitem(last=False)
                self._kept_chars -= len(run.text) + RUN_CHARS


def _by_place(tokenizer: Tokenizer) -> dict[Place, Tokenizer]:
    """The tokenizer as it treats a run that stands there; the same one where that makes no difference."""
    tokenizer.encode_special_tokens = True
    whole = json.loads(tokenizer.to_str())
    placed = {Place.ALONE: tokenizer}
    for place in (Place.AFTER_SPECIAL, Place.WITHIN):
        changed = {part: _without_prefix(whole[part], place) for part in ("normalizer", "pre_tokenizer")}
        if changed.items() <= whole.items():
            placed[place] = tokenizer
        else:
            placed[place] = Tokenizer.from_str(json.dumps(whole | changed))
            placed[place].encode_special_tokens = True
    return placed


def _without_prefix(part: Any, place: Place) -> Any:
    """A normalizer or pre-tokenizer that puts before a run only what it puts before one that stands there.

    ``first`` means the beginning of the whole text; all others act after each special token too.
    """
    if part is None or (place is Place.WITHIN and part["type"] == "Prepend"):
        return None
    changed = dict(part)
    for parts in ("normalizers", "pretokenizers"):
        if parts in part:
            inner = (_without_prefix(one, place) for one in part[parts])
            changed[parts] = [one for one in inner if one is not None]
    if part.get("prepend_scheme") == "first" or (place is Place.WITHIN and "prepend_scheme" in part):
        changed["prepend_scheme"] = "never"
    if place is Place.WITHIN and part.get("add_prefix_space"):
        changed["add_prefix_space"] = False
    return changed
