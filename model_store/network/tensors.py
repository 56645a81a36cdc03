"""Shapes and tensors of a checkpoint's safetensors files, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model_store.errors import CheckpointCorrupt, one_line


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor in the safetensors files of a directory; only their headers are read.

    Raises:
        CheckpointCorrupt: a file cannot be read.
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with open_tensors(file) as tensors:
            shapes |= {name: list(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def read_tensors(path: Path, names: set[str]) -> dict[str, Tensor]:
    """The tensors of ``names`` that the files of a directory hold; others are left out.

    Raises:
        CheckpointCorrupt: a file cannot be read.
    """
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        with open_tensors(file) as tensors:
            found |= {name: torch.as_tensor(tensors.get_tensor(name)) for name in names & set(tensors.keys())}
    return found


@contextmanager
def open_tensors(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 500)}") from error
