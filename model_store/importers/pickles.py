"""``pytorch_model*.bin`` -> safetensors, in a process of its own that cannot fill the machine.

torch reads only tensors (``weights_only``). That had holes before, hence the process and its limits.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from safetensors.torch import save_file

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.importers.layout import BIN_INDEX, INDEX, indexed_files
from model_store.importers.limits import SPARE_BYTES, limit_process

_WEIGHTS: Final = re.compile(r"(pytorch|adapter)_model(-\d+-of-\d+)?\.bin")
"""Only these are converted: trainers write other pickles into the same directory."""


def bin_files(source: Path) -> list[Path]:
    """The ``.bin`` files of a directory that hold weights, in order."""
    return [file for file in sorted(source.glob("*.bin")) if _WEIGHTS.fullmatch(file.name)]


def convert(source: Path, into: Path) -> list[Path]:
    """Writes each ``.bin`` of a checkpoint as safetensors into a directory; returns the files.

    Raises:
        CheckpointError: ``into`` is there already, or ``source`` holds no such file.
        CheckpointCorrupt: a file holds anything but tensors, or needs more than a reader may use.
    """
    files = bin_files(source)
    if not files:
        raise CheckpointError(f"{source} holds no pytorch_model.bin or the like to convert")
    if into.exists():
        raise CheckpointError(f"{into} is there already")
    into.mkdir(parents=True)
    done = subprocess.run(  # noqa: S603  (this file, in the same Python)
        [sys.executable, "-m", __name__, *(str(path.absolute()) for path in (into, *files))],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],  # where this package is found
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its reader ended with {done.returncode}"]
        raise CheckpointCorrupt(f"{source} was not converted: {one_line(lines[-1], 300)}")
    _convert_index(source, into)
    return [into / _converted(file.name) for file in files]


def _converted(name: str) -> str:
    return name.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"


def _convert_index(source: Path, into: Path) -> None:
    if not indexed_files(source / BIN_INDEX):
        return
    index = json.loads((source / BIN_INDEX).read_text(encoding="utf-8"))
    index["weight_map"] = {tensor: _converted(file) for tensor, file in index["weight_map"].items()}
    index.setdefault("metadata", {})  # transformers requires it
    (into / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _tensors(loaded: Any) -> dict[str, torch.Tensor]:
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise TypeError("it holds something other than tensors by name")
    return {
        str(name): tensor.clone().contiguous() for name, tensor in loaded.items()
    }  # cloned: tied tensors share their bytes


def main(arguments: Sequence[str]) -> None:
    into, *files = map(Path, arguments)
    torch.set_num_threads(1)
    size = max(file.stat().st_size for file in files)
    limit_process(memory=3 * size + SPARE_BYTES, cpu_seconds=3600, file_bytes=2 * size + 2**20)
    for file in files:
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            save_file(_tensors(loaded), into / _converted(file.name), metadata={"format": "pt"})
        except UnpicklingError as error:  # its text explains how to read the file unsafely
            raise SystemExit(f"{file.name}: it holds something other than tensors by name") from error
        except Exception as error:
            raise SystemExit(f"{file.name}: {one_line(str(error), 200) or type(error).__name__}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
