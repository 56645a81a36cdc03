"""Stages the weights of an imported checkpoint for publishing, as links to its files where possible.

They are written anew if their tensors have names that transformers does not know, or if an adapter changes them.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.importers.layout import ADAPTER_SINGLE, BIN_SINGLE, INDEX, SINGLE, indexed_files
from model_store.importers.text_tower import TextNames, text_names
from model_store.network.lora import Adapter
from model_store.network.tensors import open_tensors

_LAYER: Final = re.compile(r"((?:.*?\.)??)(?:model\.|transformer\.)?(?:decoder\.)?(?:layers|h|blocks)\.0\.")


def stage_weights(source: Path, into: Path, adapter: Adapter | None, *, text_only: bool = False) -> list[str]:
    """Writes the weights of ``source`` to ``into`` as transformers reads them.

    With ``text_only``, they are those of a composite's text tower; returns the modules that are left out then.

    Raises:
        CheckpointError: there are no safetensors, a shard is missing, the adapter does not fit, or the text tower
            cannot be told from the others.
    """
    files = weight_files(source)
    held = {file: _names(file) for file in files}
    names = [name for file in files for name in held[file]]
    if adapter is None and (unmerged := [name for name in names if ".lora_" in name]):
        raise CheckpointError(
            f"{source} holds {one_line(unmerged[0])} of an adapter that is not merged; merge it with the library that "
            "made it"
        )
    renamed, left_out = text_names(names) if text_only else TextNames(_without_wrapper(names), [])
    if twice := [name for name, count in Counter(renamed.values()).items() if count > 1]:
        raise CheckpointCorrupt(f"{source} holds {one_line(twice[0])} twice, with and without the prefix of a wrapper")
    targets = {file: file.name if len(files) > 1 else SINGLE for file in files}
    if adapter is None and all(renamed.get(name) == name for name in names):
        for file, target in targets.items():
            link_or_copy(file, into / target)
        if len(files) > 1:
            link_or_copy(source / INDEX, into / INDEX)
        return left_out
    index: dict[str, str] = {}
    for file, target in targets.items():
        changed = _changed(file, [name for name in held[file] if adapter or name in renamed], renamed, adapter)
        if adapter and file == files[-1]:
            changed |= adapter.remaining()
        if changed:
            save_file(changed, into / target, metadata={"format": "pt"})
        index |= dict.fromkeys(changed, target)
    if len(files) > 1:
        (into / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=2), encoding="utf-8")
    return left_out


def _changed(file: Path, names: list[str], renamed: Mapping[str, str], adapter: Adapter | None) -> dict[str, Tensor]:
    """The tensors of a file under their new names, with the adapter's changes; others are left out."""
    changed: dict[str, Tensor] = {}
    with open_tensors(file) as tensors:
        for name in names:
            tensor = torch.as_tensor(tensors.get_tensor(name))
            tensor = adapter.merged(name, tensor) if adapter else tensor
            if name in renamed:
                changed[renamed[name]] = tensor.contiguous()
    return changed


def weight_files(source: Path) -> list[Path]:
    """The safetensors files that make up a checkpoint, in order.

    Raises:
        CheckpointCorrupt: there are none, or several without an index, or the index names one that is missing.
    """
    if (source / SINGLE).exists():  # transformers reads it even beside an index
        return [source / SINGLE]
    if names := indexed_files(source / INDEX):
        if absent := [name for name in names if not (source / name).is_file()]:
            raise CheckpointCorrupt(f"{source} lacks {one_line(absent[0])}, which its index names")
        return [source / name for name in names]
    files = [file for file in sorted(source.glob("*.safetensors")) if file.name != ADAPTER_SINGLE]
    if len(files) == 1:
        return files
    if files:
        raise CheckpointCorrupt(
            f"{source} holds {len(files)} safetensors files and no {INDEX} that says which are its weights"
        )
    raise CheckpointCorrupt(f"{source} holds no safetensors file, nor {BIN_SINGLE}")


def _without_wrapper(names: Sequence[str]) -> dict[str, str]:
    """The names without the prefix of a class of their authors' own that wraps the backbone, if there is one."""
    found = {match[1] for name in names if (match := _LAYER.match(name))}
    prefix = found.pop() if len(found) == 1 else ""
    return {name: name.removeprefix(prefix) for name in names}


def link_or_copy(source: Path, target: Path) -> None:
    """Makes a hard link, or a copy if the file system allows none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _names(file: Path) -> list[str]:
    with open_tensors(file) as tensors:
        return sorted(tensors.keys())
