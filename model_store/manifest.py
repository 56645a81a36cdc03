"""``prm.json``: what a checkpoint is, how its text is rendered and how its score is read.

Knows no torch and opens no weights; a manifest that parses is complete and of the right types, nothing more.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from agentprm.errors import ManifestInvalid

FORMAT: Final = 1
MAX_DEPTH: Final = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScoreRecipe:
    """How hidden states become a score.

    ``head``: ``linear`` is ``score.weight`` [1, H] (and ``score.bias`` [1] where the checkpoint has one), the
    layout of the ``*ForSequenceClassification`` classes with one label. ``activation`` maps the head's output to
    promise: ``sigmoid``, or ``identity`` (clipped into [0, 1]). ``read`` names the token whose hidden state counts:
    ``action_end``, the last token of the rendered action.
    """

    head: Literal["linear"]
    activation: Literal["sigmoid", "identity"]
    read: Literal["action_end"]

    def promise(self, raw: float) -> float:
        """Promise in [0, 1] of one raw score."""
        if self.activation == "identity":
            return min(1.0, max(0.0, raw))
        if raw >= 0:
            return 1 / (1 + math.exp(-raw))
        odds = math.exp(raw)  # exp of a negative number: cannot overflow
        return odds / (1 + odds)


@dataclass(frozen=True, slots=True)
class Template:
    """The text around each segment, as ``(before, after)``; special tokens are recognised here and only here.

    ``action[1]`` must not be empty: it is the token at which every action ends and is scored.
    """

    begin: str
    task: tuple[str, str]
    observation: tuple[str, str]
    action: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of ``prm.json``. ``digest`` covers all the others and every other file of the checkpoint."""

    format: int
    name: str
    version: str
    base_model: str
    score: ScoreRecipe
    template: Template
    render_version: int
    dtype: Literal["float32", "bfloat16", "float16"]
    context_length: int
    training: dict[str, Any]
    evaluation: dict[str, Any]
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def content(self) -> bytes:
        """What the digest covers: every field but the digest, in canonical JSON."""
        content = json.loads(self.to_json())  # as a reader gets it: JSON turns tuples to lists, keys to text
        del content["digest"]
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``.

    Raises:
        ManifestInvalid: no JSON object, one that cannot be written again, a missing or unknown field, or a value of
            the wrong type; names the field.
    """
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()  # what the digest covers must be JSON in UTF-8
        too_deep = _depth(data) > MAX_DEPTH
    except ValueError as error:
        raise ManifestInvalid(f"prm.json is not JSON: {error}") from error
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ManifestInvalid(f"prm.json nests deeper than {MAX_DEPTH} levels")
    manifest = _decode(Manifest, data, "prm.json")
    if manifest.format != FORMAT:
        raise ManifestInvalid(f"prm.json: format is {manifest.format}, this version reads {FORMAT}")
    if not manifest.digest:
        raise ManifestInvalid("prm.json: digest is empty; publish the checkpoint to give it one")
    if manifest.context_length < 1:
        raise ManifestInvalid("prm.json: context_length must be positive")
    if not manifest.template.action[1]:
        raise ManifestInvalid("prm.json: template.action must end in a boundary, its second text is empty")
    return manifest


def shown(text: str, limit: int = 80) -> str:
    """What came from a file or another library, fit for a sentence: short, and in one line."""
    return " ".join(text.split()).encode("unicode_escape").decode()[:limit]


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _decode(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from JSON, strictly: every field there, none unknown, no value coerced."""
    if not isinstance(data, Mapping):
        raise ManifestInvalid(f"{where} must be an object")
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for wrong, complaint in ((known - set(data), "is missing"), (set(data) - known, "is not a field")):
        if wrong:
            raise ManifestInvalid(f"{where}: {', '.join(map(shown, sorted(wrong)[:5]))} {complaint}")
    return kind(**{name: _value(hints[name], data[name], f"{where}: {name}") for name in known})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _decode(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ManifestInvalid(f"{where} must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(arguments):
            raise ManifestInvalid(f"{where} must be a list of {len(arguments)} texts")
        return tuple(_value(one, part, where) for one, part in zip(arguments, value, strict=True))
    expected = origin or hint
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ManifestInvalid(f"{where} must be {_name(expected)}")
    return value


def _name(expected: Any) -> str:
    return {str: "a text", int: "a whole number", dict: "an object"}.get(expected, str(expected))
