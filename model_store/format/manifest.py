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
from model_store.format.bases import AdapterBase, check_adapter_base
from model_store.format.chat import ChatTemplate, check_chat
from model_store.format.check import Check, refuse_disagreeing
from model_store.format.judge import Judge, check_judge
from model_store.format.recipe import ScoreRecipe, check_score
from model_store.format.template import Template
from model_store.format.validation import NOT_NULL, STRICT, read_strictly

FORMAT: Final = 1
MAX_DEPTH: Final = 100
"""Levels of arrays and objects in a manifest."""


@with_config(STRICT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The fields of ``prm.json``. ``digest`` covers all the others and every other file of the checkpoint.

    A checkpoint renders by the texts of ``template``, or by its chat template, with ``chat``. With ``adapter_of``, its
    weights are an adapter and a head, and this is the base that they belong to.
    """

    format: int
    name: str
    version: str
    base_model: str
    score: ScoreRecipe
    template: Annotated[Template | None, NOT_NULL] = None
    chat: Annotated[ChatTemplate | None, NOT_NULL] = None
    render_version: int
    dtype: Literal["float32", "bfloat16", "float16"]
    context_length: int
    training: dict[str, Any]
    evaluation: dict[str, Any]
    judge: Annotated[Judge | None, NOT_NULL] = None
    check: Annotated[Check | None, NOT_NULL] = None
    adapter_of: Annotated[AdapterBase | None, NOT_NULL] = None
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def texts(self) -> Template:
        """The template of texts. Raises ManifestInvalid for a checkpoint that renders by its chat template."""
        if self.template is None:
            raise ManifestInvalid(f"{self.reference} renders by its chat template, not by texts")
        return self.template

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
    _check_rendering(manifest)
    _check_judge(manifest)
    if manifest.adapter_of is not None:
        check_adapter_base(manifest.adapter_of)
        if manifest.score.head != "linear":
            raise ManifestInvalid("prm.json: adapter_of: an adapter has a linear head")
    if manifest.check is not None:
        refuse_disagreeing(manifest.check)
    return manifest


def _check_rendering(manifest: Manifest) -> None:
    if (manifest.template is None) == (manifest.chat is None):
        raise ManifestInvalid("prm.json: template or chat must be there, and not both")
    if manifest.chat is not None:
        check_chat(manifest.chat)
        if manifest.judge is not None:
            raise ManifestInvalid("prm.json: chat: a judge has a template of texts, for its history")


def _check_judge(manifest: Manifest) -> None:
    judge = manifest.judge
    if (judge is not None) != (manifest.score.head == "judge"):
        raise ManifestInvalid("prm.json: judge must be there for a judge head, and for no other")
    if judge is not None:
        check_judge(judge)
        if (judge.number is None) != (manifest.score.activation == "softmax"):
            raise ManifestInvalid(
                "prm.json: score: activation must be identity for a judge's number, softmax for its tokens"
            )


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
