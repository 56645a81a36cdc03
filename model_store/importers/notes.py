"""Sentences about an import: what is assumed because the files do not say it, and what they say unusually."""

from model_store.format.manifest import Manifest


def notes(manifest: Manifest, preset: str, separator: str | None) -> tuple[str, ...]:
    """The sentences for one checkpoint; ``separator`` is the one that was asked for."""
    found = []
    if preset == "trl-prm":
        assumed = "" if separator is not None else ", which is assumed, as no file says it; --separator names another"
        found.append(f"steps are read at the separator {manifest.texts.action[1]!r}{assumed}")
    if manifest.score.pad_token_id is not None:
        found.append(f"token {manifest.score.pad_token_id} is padding to this classifier: no step is read at it")
    return tuple(found)
