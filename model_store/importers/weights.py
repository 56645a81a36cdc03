"""Stages the weights of an imported checkpoint for publishing, as links to its files where possible.

They are written anew if their tensors have names that transformers does not know, or if an adapter changes them.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from model_store.errors import CheckpointCorrupt, one_line
from model_store.importers.lora import WEIGHTS as ADAPTER_WEIGHTS
from model_store.importers.lora import Adapter
from model_store.network.tensors import open_tensors

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
_LAYER: Final = re.compile(r"(.*?)(?:model\.)?layers\.0\.")


def stage_weights(source: Path, into: Path, adapter: Adapter | None) -> None:
    """Writes the weights of ``source`` to ``into`` as transformers reads them.

    Raises:
        CheckpointCorrupt: there are no safetensors, a shard is missing, or the adapter does not fit.
    """
    files = weight_files(source)
    names = {name: file for file in files for name in _names(file)}
    prefix = wrapper_prefix(names)
    targets = {file: file.name if len(files) > 1 else SINGLE for file in files}
    if not prefix and adapter is None:
        for file, target in targets.items():
            link_or_copy(file, into / target)
        if len(files) > 1:
            link_or_copy(source / INDEX, into / INDEX)
        return
    index: dict[str, str] = {}
    for file, target in targets.items():
        with open_tensors(file) as tensors:
            held = {name: torch.as_tensor(tensors.get_tensor(name)) for name in _names(file)}
        changed = {
            name.removeprefix(prefix): adapter.merged(name, tensor) if adapter else tensor
            for name, tensor in held.items()
        }
        if adapter and file == files[-1]:
            changed |= adapter.remaining()
        index |= dict.fromkeys(changed, target)
        contiguous = {name: tensor.contiguous() for name, tensor in changed.items()}
        save_file(contiguous, into / target, metadata={"format": "pt"})
    if len(files) > 1:
        (into / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=2), encoding="utf-8")


def weight_files(source: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint, in order.

    Raises:
        CheckpointCorrupt: there are none, or several without an index, or the index names one that is missing.
    """
    if (source / INDEX).exists():
        try:
            named = json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = [source / name for name in sorted(set(named.values()))]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointCorrupt(f"{source / INDEX} does not map tensors to files") from error
        if absent := [file.name for file in files if file.parent != source or not file.is_file()]:
            raise CheckpointCorrupt(f"{source} lacks {one_line(absent[0])}, which its index names")
        return files
    files = [file for file in sorted(source.glob("*.safetensors")) if file.name != ADAPTER_WEIGHTS]
    if (source / SINGLE) in files:
        return [source / SINGLE]
    if len(files) == 1:
        return files
    if files:
        raise CheckpointCorrupt(
            f"{source} holds {len(files)} safetensors files and no {INDEX} that says which are its weights"
        )
    if list(source.glob("*.bin")):
        raise CheckpointCorrupt(
            f"{source} holds its weights as .bin, a pickle that runs code when read; "
            "`python -m model_store convert` turns it into safetensors in a process of its own"
        )
    raise CheckpointCorrupt(f"{source} holds no safetensors file")


def wrapper_prefix(names: Iterable[str]) -> str:
    """The prefix of the backbone's tensor names if its authors wrapped it in a class of their own, else empty."""
    found = {match[1] for name in names if (match := _LAYER.match(name))}
    return found.pop() if len(found) == 1 else ""


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a hard link, or a copy if the file system allows none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _names(file: Path) -> list[str]:
    with open_tensors(file) as tensors:
        return sorted(tensors.keys())
