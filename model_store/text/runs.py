"""Runs of text to token ids, the same ids that they have within the whole text.

A tokenizer cuts its text at special tokens first, so the text between two of them can be tokenised on its own and
cached. Some tokenizers put a space or a "▁" before a text; whether they do depends on the ``Place`` of the run.
"""

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tokenizers import Encoding, Tokenizer

from model_store.errors import CheckpointCorrupt, ManifestInvalid, one_line
from model_store.text.recent import Recent

CACHED_CHARS: Final = 2_000_000
"""Most characters of cached runs: their ids take 20 MB at four characters a token, 80 MB at a single one."""
RUN_CHARS: Final = 64
"""Characters that each run counts in addition to its text, so that the number of short runs is bounded too."""
PIECE_CHARS: Final = 16_384
"""Characters of runs that are tokenised before the tokens are counted: 3 to 15 ms of one core. A run is never cut."""
BEGINNING_CHARS: Final = 16
"""Characters for each allowed token in the beginning of a long run. Text of four characters a token has in it four
times as many tokens as are allowed."""
CUT_TOKENS: Final = 256
"""Tokens that the last word of a beginning may have more because it is cut: longer than any one token is in bytes."""
ALONE_CHARS: Final = 4096
"""Most characters of runs that are tokenised one by one, in the calling thread. The tokenizer's own threads are faster
only beyond that, and a short text must not wait for them while they have a long one."""
UNLIMITED: Final = sys.maxsize
_WHITE_SPACE: Final = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What a token that takes the white space beside it takes: Python's own ``strip`` takes four characters more."""


class Place(StrEnum):
    ALONE = "alone"
    """A whole text, or its beginning."""
    AFTER_SPECIAL = "after a special token"
    WITHIN = "within a text"


class Run(NamedTuple):
    text: str
    place: Place


Parts = Sequence[str | list[int]]
"""A text of a template: ids of special tokens, and text that is tokenised with its neighbours."""


class Unrenderable(ValueError):
    """A checkpoint's template cannot render a history. The text is one sentence for the caller."""


class TooManyTokens(Exception):
    """Tokenising has stopped, because the limit is passed. ``tokens`` is the number found until then."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"{tokens} tokens or more")
        self.tokens = tokens


class RunTokenizer:
    """One tokenizer, with a cache of the ids of recent runs; safe to call from several threads.

    Special tokens are recognised by ``boundary`` and ``split`` only: in a run they are ordinary characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        written = json.loads(tokenizer.to_str())
        self._tokenizers = _by_place(tokenizer, written)
        self._normalizer = tokenizer.normalizer
        self.unknown_id = _unknown_id(tokenizer, written["model"])
        """The id of all text that the vocabulary lacks; None where every text has ids of its own."""
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: index for index, token in added.items()}
        self._greedy = {token.content for token in added.values() if token.lstrip or token.rstrip}
        self._special = {token.content: (index, token) for index, token in added.items() if token.special}
        self._special_pattern = any_of(self._special)
        self._ids = Recent[Run, list[int]](CACHED_CHARS, _chars)
        self._ends = Recent[Run, int](CACHED_CHARS, _chars)

    @property
    def largest_id(self) -> int:
        """The largest id that a run can produce; special tokens are ordinary characters there."""
        tokenizer = self._tokenizers[Place.ALONE]
        special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        return max(set(tokenizer.get_vocab(with_added_tokens=True).values()) - special, default=0)

    @property
    def special(self) -> dict[str, int]:
        """The ids of special tokens, by their texts."""
        return {text: index for text, (index, _) in self._special.items()}

    def refuse_conditional(self, tokens: Collection[str]) -> None:
        """Checks that the special tokens of a template are tokens wherever they stand.

        Raises:
            CheckpointCorrupt: one is a token as a word of its own only, or only where a normalizer leaves it so.
        """
        for content in tokens:
            _, token = self._special[content]
            normal = self._normalizer is None or self._normalizer.normalize_str(content) == content
            if token.single_word or (token.normalized and not normal):
                raise CheckpointCorrupt(
                    f"special token {one_line(content)!r} is recognised in some places only (single_word or "
                    "normalized), which a chat template cannot rely on"
                )

    def split_at_special(self, text: str) -> list[str | int]:
        """A text as the tokenizer cuts it first: the ids of its special tokens and the text between them."""
        if self._special_pattern is None:
            return [text] if text else []
        parts, begin = list[str | int](), 0
        for found in self._special_pattern.finditer(text):
            token_id, token = self._special[found[0]]
            before = text[begin : found.start()]
            parts += [before.rstrip(_WHITE_SPACE) if token.lstrip else before, token_id]
            begin = found.end()
            if token.rstrip:
                begin = len(text) - len(text[begin:].lstrip(_WHITE_SPACE))
        return [part for part in (*parts, text[begin:]) if part != ""]

    def boundary(self, text: str) -> Parts:
        """The ids of a template's text that is tokenised on its own."""
        tokenizer = self._tokenizers[Place.ALONE]
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids if text else []
        tokenizer.encode_special_tokens = True
        return [list(ids)] if ids else []

    def split(self, text: str) -> Parts:
        """A template's text, split into the ids of its special tokens and the text between them.

        Raises:
            ManifestInvalid: a special token swallows the whitespace around it, so its ids depend on its neighbours.
        """
        if not self._added:
            return [text] if text else []
        pattern = any_of(self._added)
        assert pattern is not None
        parts = [part for part in re.split(f"({pattern.pattern})", text) if part]
        if greedy := [part for part in parts if part in self._greedy]:
            raise ManifestInvalid(
                f"template: {one_line(greedy[0])} takes whitespace beside it away, which no template can"
            )
        return [[self._added[part]] if part in self._added else part for part in parts]

    def encode(self, runs: Sequence[Run], max_tokens: int = UNLIMITED) -> list[list[int]]:
        """The ids of each run. Agents send their history with every step, so recent runs are only looked up.

        Raises:
            TooManyTokens: with the new runs there are more than ``max_tokens``. Nothing is tokenised after the piece
                that passes them.
        """
        ids = self._ids.find(runs)
        if None not in ids:
            return [known for known in ids if known is not None]
        new = list(dict.fromkeys(run for run, known in zip(runs, ids, strict=True) if known is None))
        found: dict[Run, list[int]] = {}
        tokens = sum(len(known) for known in ids if known is not None)
        for piece in _pieces(new):
            self._refuse_by_beginning(piece, max_tokens)
            encodings = self._encodings(piece)
            tokens += sum(map(len, encodings.values()))
            _refuse_too_many(tokens, max_tokens)  # before they become lists
            ids_of_piece = {run: encoding.ids for run, encoding in encodings.items()}
            self._ids.keep(ids_of_piece)
            found |= ids_of_piece
        return [found[run] if known is None else known for run, known in zip(runs, ids, strict=True)]

    def count(self, runs: Sequence[Run], max_tokens: int) -> list[int]:
        """The tokens of each run, ``max_tokens + 1`` if it has more. Short runs are tokenised together."""
        short = [run for run in dict.fromkeys(runs) if len(run.text) <= ALONE_CHARS]
        counts = {run: len(ids) for run, ids in zip(short, self.encode(short), strict=True)}
        for run in runs:
            if run not in counts:
                try:
                    counts[run] = len(self.encode([run], max_tokens)[0])
                except TooManyTokens:
                    counts[run] = max_tokens + 1
        return [min(counts[run], max_tokens + 1) for run in runs]

    def token_end(self, run: Run, at: int, max_tokens: int = UNLIMITED) -> int:
        """The first place in a run's text, ``at`` or after it, where a token ends if a word follows.

        ``at`` must be the same whenever the run is.

        Raises:
            TooManyTokens: there are more than ``max_tokens`` before that place.
        """
        (end,) = self._ends.find([run])
        if end is None:
            self._refuse_by_beginning([run], max_tokens)
            text = run.text + "x"
            (encoding,) = self._tokenizers[run.place].encode_batch([text], add_special_tokens=False)
            after = len(text[at:].encode())  # no token is shorter than a byte
            _refuse_too_many(len(encoding) - after, max_tokens)
            end = min(end for _, end in (*encoding.offsets, (0, len(run.text))) if end >= at)
            self._ends.keep({run: end})
        return end

    def _refuse_by_beginning(self, runs: Sequence[Run], max_tokens: int) -> None:
        """Refuses a long run by the tokens of its beginning, so that its whole text costs no time and no memory.

        A beginning may be tokenised otherwise than in its text, but never to twice as many tokens and ``CUT_TOKENS``.
        """
        chars = max(PIECE_CHARS, BEGINNING_CHARS * max_tokens)
        for text, place in runs:
            if len(text) > chars:
                (encoding,) = self._encode_texts([text[:chars]], place)
                _refuse_too_many((len(encoding) - CUT_TOKENS) // 2, max_tokens)

    def _encodings(self, runs: Sequence[Run]) -> dict[Run, Encoding]:
        encodings: dict[Run, Encoding] = {}
        for place in Place:
            here = [run for run in runs if run.place is place]
            encodings |= zip(here, self._encode_texts([run.text for run in here], place), strict=True)
        return encodings

    def _encode_texts(self, texts: list[str], place: Place) -> Sequence[Encoding]:
        encode = self._tokenizers[place].encode_batch_fast
        if sum(map(len, texts)) > ALONE_CHARS:
            return encode(texts, add_special_tokens=False)
        return [encode([text], add_special_tokens=False)[0] for text in texts]


def any_of(tokens: Collection[str]) -> re.Pattern[str] | None:
    """Finds the longest token at the first place that has one, as a tokenizer does; None if there are no tokens."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _pieces(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """Cuts behind the run that makes a piece as long as ``PIECE_CHARS``."""
    begin = chars = 0
    for end, run in enumerate(runs, start=1):
        chars += len(run.text) + RUN_CHARS
        if chars >= PIECE_CHARS or end == len(runs):
            yield runs[begin:end]
            begin, chars = end, 0


def _refuse_too_many(tokens: int, max_tokens: int) -> None:
    if tokens > max_tokens:
        raise TooManyTokens(tokens)


def _chars(run: Run, _: object) -> int:
    return len(run.text) + RUN_CHARS


def _unknown_id(tokenizer: Tokenizer, model: Mapping[str, Any]) -> int | None:
    if "unk_id" in model:
        found: int | None = model["unk_id"]
        return found
    token = model.get("unk_token")
    return tokenizer.token_to_id(token) if token else None


def _by_place(tokenizer: Tokenizer, whole: Mapping[str, Any]) -> dict[Place, Tokenizer]:
    """The tokenizer for runs of each place; the same one if the place makes no difference."""
    placed = {Place.ALONE: tokenizer}
    for place in (Place.AFTER_SPECIAL, Place.WITHIN):
        changed = {part: _without_prefix(whole[part], place) for part in ("normalizer", "pre_tokenizer")}
        if changed.items() <= whole.items():
            placed[place] = tokenizer
        else:
            placed[place] = Tokenizer.from_str(json.dumps({**whole, **changed}))
            placed[place].encode_special_tokens = True
    return placed


def _without_prefix(part: Any, place: Place) -> Any:
    """A normalizer or pre-tokenizer without the prefix that it does not put before a run of that place.

    A scheme of ``first`` adds it at the beginning of the whole text only, all others after each special token too.
    """
    if part is None or (place is Place.WITHIN and part["type"] == "Prepend"):
        return None
    changed = dict(part)
    for parts in ("normalizers", "pretokenizers"):
        if parts in part:
            inner = (_without_prefix(member, place) for member in part[parts])
            changed[parts] = [member for member in inner if member is not None]
    if part.get("prepend_scheme") == "first" or (place is Place.WITHIN and "prepend_scheme" in part):
        changed["prepend_scheme"] = "never"
    if place is Place.WITHIN and part.get("add_prefix_space"):
        changed["add_prefix_space"] = False
    return changed
