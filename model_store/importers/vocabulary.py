"""Fits a borrowed configuration and tokenizer to weights whose vocabulary was changed in training code.

Training code that adds a step token to the base's tokenizer resizes the embeddings to the tokenizer's new length. The
weights then have one row for each token, while the base's files know neither the token nor the number of rows.
"""

import json
from pathlib import Path
from typing import Final

from tokenizers import AddedToken

from model_store.importers.layout import CONFIG, TOKENIZER, read_object
from model_store.network.tensors import tensor_shapes
from model_store.text.tokenizer_file import load_tokenizer

_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


def fit_vocabulary(path: Path, step_token: str) -> list[str]:
    """Changes the vocabulary in the files of ``path`` to that of its weights; returns a sentence for each change.

    ``step_token`` is what the family's training code adds to the tokenizer, if anything. It is added here if it would
    be the token of the last row.

    Raises:
        CheckpointCorrupt: a file cannot be read.
    """
    rows = [shape[0] for name, shape in tensor_shapes(path).items() if name.endswith(_EMBEDDINGS)]
    if len(rows) != 1:
        return []
    config, notes = read_object(path / CONFIG), []
    if config.get("vocab_size", rows[0]) != rows[0]:
        notes.append(f"vocab_size is {rows[0]} as in the weights, not {config['vocab_size']}")
        _replace(path / CONFIG, json.dumps(config | {"vocab_size": rows[0]}, indent=2))
    if not step_token or not (path / TOKENIZER).exists():
        return notes
    tokenizer = load_tokenizer(path)
    if tokenizer.get_vocab_size() + 1 == rows[0] and tokenizer.token_to_id(step_token) is None:
        tokenizer.add_special_tokens([AddedToken(step_token, special=True, normalized=False)])
        notes.append(f"{step_token!r} was added to the tokenizer as token {tokenizer.token_to_id(step_token)}")
        _replace(path / TOKENIZER, tokenizer.to_str())
    return notes


def _replace(file: Path, text: str) -> None:
    """Writes a new file in place of a link, whose target must not change."""
    file.unlink()
    file.write_text(text, encoding="utf-8")
