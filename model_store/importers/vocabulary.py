"""Fits a borrowed configuration and tokenizer to weights whose vocabulary was changed in training code.

Training code that adds a step token to the base's tokenizer resizes the embeddings to the tokenizer's new length. The
weights then have one row for each token, while the base's files know neither the token nor the number of rows.
"""

import json
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer

from model_store.errors import one_line
from model_store.importers.layout import CONFIG, TOKENIZER
from model_store.network.tensors import tensor_shapes

_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


def fit_vocabulary(path: Path, separator: str) -> list[str]:
    """Changes the vocabulary in the files of ``path`` to that of its weights; returns a sentence for each change.

    ``separator`` is the step token of the preset. It is added if it would be the token of the last row.
    """
    rows = [shape[0] for name, shape in tensor_shapes(path).items() if name.endswith(_EMBEDDINGS)]
    config_file, tokenizer_file, notes = path / CONFIG, path / TOKENIZER, []
    if len(rows) != 1 or not config_file.exists() or not tokenizer_file.exists():
        return []
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config.get("vocab_size", rows[0]) != rows[0]:
        notes.append(f"vocab_size is {rows[0]} as in the weights, not {config['vocab_size']}")
        _replace(config_file, json.dumps(config | {"vocab_size": rows[0]}, indent=2))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    if separator and tokenizer.get_vocab_size() + 1 == rows[0] and tokenizer.token_to_id(separator) is None:
        tokenizer.add_special_tokens([AddedToken(separator, special=True, normalized=False)])
        notes.append(f"{one_line(separator)!r} was added to the tokenizer as token {tokenizer.token_to_id(separator)}")
        _replace(tokenizer_file, tokenizer.to_str())
    return notes


def _replace(file: Path, text: str) -> None:
    """Writes a new file in place of a link, whose target must not change."""
    file.unlink()
    file.write_text(text, encoding="utf-8")
