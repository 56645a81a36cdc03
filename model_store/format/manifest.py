"""``prm.json``: what a checkpoint is, how its text is rendered and how its score is read.

Knows no torch and opens no weights; a manifest that parses is complete, of the right types and agrees with itself.
Fields with a default may be absent, and at their default are not written: a field added to the format later changes
no digest of a checkpoint that does without it.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from model_store.errors import ManifestInvalid
from model_store.format.judge import Judge, check_judge
from model_store.format.recipe import ScoreRecipe, check_score
from model_store.format.strict_json import MAX_DEPTH, decode, depth, encode
from model_store.format.template import Template

FORMAT: Final = 1


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
    judge: Judge | None = None
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        return json.dumps(encode(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def content(self) -> bytes:
        """What the digest covers: every field but the digest, in canonical JSON."""
        content = json.loads(self.to_json())  # as a reader gets it: JSON turns tuples to lists, keys to text
        content.pop("digest", None)
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
        too_deep = depth(data) > MAX_DEPTH
    except ValueError as error:
        raise ManifestInvalid(f"prm.json is not JSON: {error}") from error
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ManifestInvalid(f"prm.json nests deeper than {MAX_DEPTH} levels")
    manifest = decode(Manifest, data, "prm.json")
    if manifest.format != FORMAT:
        raise ManifestInvalid(f"prm.json: format is {manifest.format}, this version reads {FORMAT}")
    if not manifest.digest:
        raise ManifestInvalid("prm.json: digest is missing or empty; publish the checkpoint to give it one")
    if manifest.context_length < 1:
        raise ManifestInvalid("prm.json: context_length must be positive")
    if not manifest.template.action[1]:
        raise ManifestInvalid("prm.json: template.action must end in a boundary, its second text is empty")
    check_score(manifest.score)
    if (manifest.judge is not None) != (manifest.score.head == "judge"):
        raise ManifestInvalid("prm.json: judge goes with the head of that name, and that head with it")
    if manifest.judge is not None:
        check_judge(manifest.judge)
    return manifest
