"""``prm.json``, the manifest: it describes a checkpoint, the rendering of its text and the reading of its score.

No weights are opened here. A manifest that parses is complete, of the right types and free of contradictions.
Fields with a default may be absent, and a field at its default is not written. A field that a later version of the
format adds therefore changes no digest of a checkpoint that does without it.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import TypeAdapter, with_config

from model_store.errors import ManifestInvalid
from model_store.format.check import Check, refuse_disagreeing
from model_store.format.judge import Judge, check_judge
from model_store.format.recipe import ScoreRecipe, check_score
from model_store.format.template import Template
from model_store.format.validation import NOT_NULL, STRICT, read_strictly

FORMAT: Final = 1
MAX_DEPTH: Final = 100
"""Levels of arrays and objects in a manifest."""


@with_config(STRICT)
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
    judge: Annotated[Judge | None, NOT_NULL] = None
    check: Annotated[Check | None, NOT_NULL] = None
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def trained_on(self) -> str | None:
        """Text and tasks that the model was trained on, as ``training.environment`` says; None if that is not text."""
        text = self.training.get("environment")
        return text if isinstance(text, str) and text else None

    def to_json(self) -> str:
        fields = _MANIFEST.dump_python(self, exclude_defaults=True, warnings="none")
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def content(self) -> bytes:
        """Canonical JSON of every field but the digest: the bytes that the digest covers."""
        content = json.loads(self.to_json())  # JSON turns tuples into lists and keys into text
        content.pop("digest", None)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_MANIFEST: Final = TypeAdapter(Manifest)


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``.

    Raises:
        ManifestInvalid: it is no JSON object, or cannot be written again; or a field is missing, unknown, of the wrong
            type or contradicts another. The sentence names the field.
    """
    manifest = read_strictly(_MANIFEST, _checked_json(text), "prm.json")
    if manifest.format != FORMAT:
        raise ManifestInvalid(f"prm.json: format is {manifest.format}, this version reads {FORMAT}")
    if not manifest.digest:
        raise ManifestInvalid("prm.json: digest is missing or empty; publish the checkpoint to give it one")
    if manifest.context_length < 1:
        raise ManifestInvalid("prm.json: context_length must be positive")
    check_score(manifest.score)
    if (manifest.judge is not None) != (manifest.score.head == "judge"):
        raise ManifestInvalid("prm.json: judge must be there for a judge head, and for no other")
    if manifest.judge is not None:
        check_judge(manifest.judge)
        if (manifest.judge.number is None) != (manifest.score.activation == "softmax"):
            raise ManifestInvalid(
                "prm.json: score: activation must be identity for a judge's number, softmax for its tokens"
            )
    if manifest.check is not None:
        refuse_disagreeing(manifest.check)
    return manifest


def _checked_json(text: str) -> bytes:
    """``text`` as UTF-8 JSON that can be written again: without NaN and lone surrogates, and not too deep."""
    try:
        data = json.loads(text)
        checked = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        too_deep = _depth(data) > MAX_DEPTH
    except ValueError as error:
        raise ManifestInvalid(f"prm.json is not JSON: {error}") from error
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ManifestInvalid(f"prm.json nests deeper than {MAX_DEPTH} levels")
    return checked


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, parts), default=0)
