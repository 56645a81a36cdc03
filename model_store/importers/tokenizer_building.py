"""Builds ``tokenizer.json`` for a checkpoint that has its tokenizer in older files only.

Those are a sentencepiece model (``tokenizer.model``), or ``vocab.json`` with ``merges.txt``. No code of the checkpoint
is run.
"""

from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer
from transformers import GPT2Tokenizer, Qwen2Tokenizer

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.importers.layout import CONFIG, TOKENIZER, read_object
from model_store.importers.sentencepiece_model import read_sentencepiece

_SENTENCEPIECE: Final = "tokenizer.model"
_VOCABULARY: Final = ("vocab.json", "merges.txt")
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens")
_FLAGS: Final = ("content", "single_word", "lstrip", "rstrip", "special")
_CLASSES: Final[dict[str, Any]] = {"GPT2Tokenizer": GPT2Tokenizer, "Qwen2Tokenizer": Qwen2Tokenizer}
_CLASS_OF_MODEL: Final = {"gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer"}


def lacks_tokenizer_json(path: Path) -> bool:
    """Returns whether a directory has no ``tokenizer.json``, but files to build it from."""
    old = (path / _SENTENCEPIECE).exists() or all((path / name).exists() for name in _VOCABULARY)
    return old and not (path / TOKENIZER).exists()


def build_tokenizer(path: Path, target: Path) -> str:
    """Writes the ``tokenizer.json`` of a checkpoint; returns what it was built from.

    Raises:
        CheckpointError: a library is missing, or the result would not give the ids of the original tokenizer.
    """
    settings = read_object(path / "tokenizer_config.json")
    special = _special(settings) | _special(read_object(path / "special_tokens_map.json"))
    added = _added(path, settings, special)
    if (path / _SENTENCEPIECE).exists():
        built_from, names = _SENTENCEPIECE, special | {token.content for token in added}
        tokenizer = read_sentencepiece(path / _SENTENCEPIECE, settings, names)
    else:
        built_from, tokenizer = " and ".join(_VOCABULARY), _byte_level(path, settings)
    for token, token_id in sorted(added.items(), key=lambda entry: entry[1]):
        _add_token(path, tokenizer, token, token_id)
    for name in sorted(special - {token.content for token in added}):  # entries of the vocabulary
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False)])
    tokenizer.save(str(target))
    return built_from


def _byte_level(path: Path, settings: dict[str, Any]) -> Tokenizer:
    named = settings.get("tokenizer_class") or _CLASS_OF_MODEL.get(str(read_object(path / CONFIG).get("model_type")))
    kind = _CLASSES.get(str(named).removesuffix("Fast"))
    if kind is None:
        raise CheckpointError(
            f"{path}: {TOKENIZER} is built from vocab.json and merges.txt for {' and '.join(_CLASSES)} only, not for "
            f"tokenizer_class {one_line(str(named))}; save the checkpoint with a fast tokenizer"
        )
    try:
        tokenizer: Tokenizer = kind.from_pretrained(path, local_files_only=True).backend_tokenizer
    except Exception as error:
        raise CheckpointCorrupt(
            f"{path}: vocab.json and merges.txt cannot be used: {one_line(str(error), 300)}"
        ) from error
    return tokenizer


def _add_token(path: Path, tokenizer: Tokenizer, token: AddedToken, token_id: int) -> None:
    """Adds a token that the checkpoint's files name. Refuses one that would get another id than they say."""
    tokenizer.add_tokens([token])
    found = tokenizer.token_to_id(token.content)
    if found != token_id:
        raise CheckpointError(
            f"{path}: its added token {one_line(token.content)!r} has id {token_id}, but would be {found} in "
            f"{TOKENIZER}; save the checkpoint with a fast tokenizer"
        )


def _added(path: Path, settings: dict[str, Any], special: set[str]) -> dict[AddedToken, int]:
    """Added tokens and their ids. The original tokenizers find them in the text before it is normalised."""
    try:
        known = {
            AddedToken(**{name: fields[name] for name in _FLAGS if name in fields}, normalized=False): int(token_id)
            for token_id, fields in (settings.get("added_tokens_decoder") or {}).items()
        }
        contents = {token.content for token in known}
        return known | {
            AddedToken(name, special=name in special, normalized=False): int(token_id)
            for name, token_id in read_object(path / "added_tokens.json").items()
            if name not in contents
        }
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise CheckpointCorrupt(f"{path}: its added tokens cannot be read: {one_line(str(error), 200)}") from error


def _special(names: dict[str, Any]) -> set[str]:
    """The special tokens that a file names, as texts or as tokens with properties."""
    listed = [names.get(name) for name in _SPECIAL]
    flat = [token for entry in listed for token in (entry if isinstance(entry, list) else [entry]) if token]
    return {str(token.get("content") if isinstance(token, dict) else token) for token in flat}
