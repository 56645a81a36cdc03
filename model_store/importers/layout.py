"""Names of the files in a checkpoint of the Hugging Face layout."""

import json
import re
from pathlib import Path
from typing import Any, Final

from model_store.errors import CheckpointCorrupt, one_line

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_FILES: Final = (
    TOKENIZER,
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
BIN_SINGLE: Final = "pytorch_model.bin"
BIN_INDEX: Final = "pytorch_model.bin.index.json"
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_SINGLE: Final = "adapter_model.safetensors"
ADAPTER_BIN: Final = "adapter_model.bin"
_FILE_NAME: Final = re.compile(r"\w[\w.-]*")


def indexed_files(index: Path) -> list[str]:
    """The names of the files that an index spreads the weights over, in order; none without an index.

    Raises:
        CheckpointCorrupt: the index cannot be read, or names something that is no file beside it.
    """
    if not index.exists():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointCorrupt(f"{index} does not map tensors to files") from error
    if odd := [name for name in names if not _FILE_NAME.fullmatch(name)]:
        raise CheckpointCorrupt(f"{index} names {one_line(odd[0])!r}, which is no file beside it")
    return names


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file.

    Raises:
        CheckpointCorrupt: the file holds anything else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(found, dict):
        raise CheckpointCorrupt(f"{file} must be an object")
    return found
