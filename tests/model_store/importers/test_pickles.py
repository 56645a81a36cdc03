"""Weights in .bin files, turned into safetensors."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model_store.errors import CheckpointCorrupt
from model_store.importers.pickles import convert


def test_bin_files_become_the_same_tensors(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"lr": 1e-5}, source / "training_args.bin")  # as trainers leave it
    shared = torch.randn(3, 3)
    torch.save({"a": shared, "b": shared[1:]}, source / "pytorch_model-00001-of-00002.bin")
    torch.save({"c": torch.randn(2).bfloat16()}, source / "pytorch_model-00002-of-00002.bin")
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "c": "pytorch_model-00002-of-00002.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    first, second = convert(source, tmp_path / "into")
    assert torch.equal(load_file(first)["b"], shared[1:])
    assert load_file(second)["c"].dtype == torch.bfloat16
    written = json.loads((tmp_path / "into" / "model.safetensors.index.json").read_text())["weight_map"]
    assert written == {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_a_bin_file_that_holds_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"a": RunsCode(tmp_path / "proof")}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointCorrupt, match=r"pytorch_model\.bin: it holds something other than tensors"):
        convert(source, tmp_path / "into")
    assert not (tmp_path / "proof").exists()
    torch.save([torch.zeros(1)], source / "pytorch_model.bin")
    with pytest.raises(CheckpointCorrupt, match="something other than tensors"):
        convert(source, tmp_path / "other")
