"""A published family as the tests know it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer


@dataclass(frozen=True)
class Family:
    """``make`` writes a checkpoint; ``promises`` are those of the authors' code for a task and its steps.

    ``options`` are those of the import, beside the preset.
    """

    preset: str
    make: Callable[[Path], Tokenizer]
    promises: Callable[[Path, Tokenizer, str, Sequence[str]], list[float]]
    recognised: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
