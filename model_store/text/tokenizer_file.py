"""``tokenizer.json`` of a checkpoint."""

from pathlib import Path

from tokenizers import Tokenizer

from model_store.errors import CheckpointCorrupt


def load_tokenizer(path: Path) -> Tokenizer:
    """The ``tokenizer.json`` of a directory. Raises CheckpointCorrupt if there is none that can be read."""
    try:
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as error:
        raise CheckpointCorrupt(f"tokenizer.json cannot be read: {error}") from error
