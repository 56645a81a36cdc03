"""Repositories of a hub, imported by one command: what is downloaded, and that the scores are the checkpoint's."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config

from model_store.__main__ import main
from model_store.commands import sources
from model_store.errors import CheckpointError, CheckpointNotFound
from model_store.format.store import Store
from model_store.importers.hub import find_source, pinned
from tests.model_store.authors import FAMILIES, STEPS, TASK, make_classifier
from tests.model_store.importers.hub_server import FakeHub, serving
from tests.model_store.importers.importing import add, served_promises, shard
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, byte_level, edit_config, weights_of


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with serving() as hub:
        for function in (find_source, pinned):
            monkeypatch.setattr(sources, function.__name__, partial(function, endpoint=hub.url))
        yield hub


@pytest.fixture
def command(store: Store, capsys: pytest.CaptureFixture[str]) -> Any:
    """Returns a function that runs ``add``, and returns its JSON."""

    def run(source: str, *options: str, version: str = "1") -> dict[str, Any]:
        names = ["--name", "foreign", "--version", version, "--store", str(store.root), "--json"]
        status = main(["add", source, *names, *options])
        out, err = capsys.readouterr()
        assert status == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    return run


def as_it_is(path: Path) -> None:
    pass


def as_bin(path: Path) -> None:
    torch.save(weights_of(path), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def shard_as_bin(path: Path) -> None:
    shard(path)
    weight_map: dict[str, str] = {}
    for file in sorted(path.glob("*.safetensors")):
        name = file.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        tensors = load_file(file)
        torch.save(tensors, path / name)
        weight_map |= dict.fromkeys(tensors, name)
        file.unlink()
    (path / "model.safetensors.index.json").unlink()
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def clutter(path: Path) -> None:
    """Leaves what trainers and authors leave in a repository."""
    for name in ("optimizer.pt", "training_args.bin", "rng_state_0.pth", "answers.json", "README.md"):
        (path / name).write_bytes(b"x" * 1000)
    (path / "global_step7").mkdir()
    (path / "global_step7" / "model.safetensors").write_bytes(b"x" * 1000)
    save_file({"a": torch.zeros(1)}, path / "consolidated.safetensors")


CONFIGURATION = {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"}


@pytest.mark.parametrize(
    ("change", "weights"),
    [
        (as_it_is, {"model.safetensors"}),
        (lambda path: torch.save(weights_of(path), path / "pytorch_model.bin"), {"model.safetensors"}),
        (shard, {f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)} | {"model.safetensors.index.json"}),
        (as_bin, {"pytorch_model.bin"}),
        (
            shard_as_bin,
            {f"pytorch_model-0000{part}-of-00003.bin" for part in (1, 2, 3)} | {"pytorch_model.bin.index.json"},
        ),
    ],
    ids=["safetensors", "both formats", "sharded", "bin", "sharded bin"],
)
def test_only_what_an_import_reads_is_downloaded(
    hub: FakeHub, command: Any, tmp_path: Path, classifier: Path, *, change: Any, weights: set[str]
) -> None:
    expected = add(Store(tmp_path / "plain"), classifier).raw
    change(classifier)
    clutter(classifier)
    old = any(name.endswith(".bin") for name in weights)
    source = hub.add("someone/model", classifier)
    found = command(source)
    assert [step["raw"] for step in found["sample"]] == expected
    assert any("converted from .bin" in note for note in found["notes"]) == old
    assert hub.names() - CONFIGURATION == weights
    assert len(hub.downloaded) == len(set(hub.downloaded)), "each file once"
    hub.repositories.clear()
    assert find_source(source, endpoint=hub.url).is_dir(), "what is in the cache needs no hub"


def test_a_folder_of_a_repository_is_imported_by_its_name(
    hub: FakeHub, command: Any, tmp_path: Path, classifier: Path
) -> None:
    source = hub.add("someone/models", classifier, folder="runs/best/")
    make_classifier(tmp_path / "other", Qwen2Config, CHATML_TOKENS, CHATML)
    hub.add("someone/models", tmp_path / "other")
    found = command(source, "--subfolder", "runs/best")
    assert found["source"] == f"{source}/runs/best"
    assert {path.rpartition("/")[0] for path in hub.downloaded} == {"someone/models/runs/best"}
    assert command(str(tmp_path), "--subfolder", classifier.name, version="2")["sample"] == found["sample"]
    with pytest.raises(CheckpointNotFound, match="has no files of a checkpoint in 'runs/none'"):
        find_source(source, "runs/none", endpoint=hub.url)
    with pytest.raises(CheckpointError, match="must be a path inside"):
        find_source(source, "../secrets", endpoint=hub.url)


def test_a_pull_request_is_recorded_as_the_commit_that_it_points_to(
    hub: FakeHub, command: Any, store: Store, classifier: Path
) -> None:
    hub.add("someone/model", classifier)
    hub.refs["refs/pr/3"] = hub.commit
    assert command("someone/model@refs/pr/3")["source"] == f"someone/model@{hub.commit}"
    assert store.resolve("foreign").manifest.base_model == f"someone/model@{hub.commit}"
    assert main(["inspect", "someone/model@refs/pr/3", "--store", str(store.root)]) == 0
    with pytest.raises(CheckpointNotFound, match="the hub has no someone/model@refs/pr/4"):
        pinned("someone/model@refs/pr/4", endpoint=hub.url)


def test_configuration_and_tokenizer_come_from_the_base_that_training_code_changed(
    hub: FakeHub, command: Any, store: Store, tmp_path: Path
) -> None:
    """PQM: weights alone, with a step token that was added in code and a row for each token."""
    family, source, base = FAMILIES["PQM"], tmp_path / "source", tmp_path / "base"
    tokenizer = family.make(source)
    rows, weights = tokenizer.get_vocab_size(), weights_of(source)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:rows].clone()
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    edit_config(source, vocab_size=rows)
    expected = family.promises(source, tokenizer, TASK, STEPS)

    base.mkdir()
    byte_level([]).save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    (base / "config.json").write_bytes((source / "config.json").read_bytes())
    edit_config(base, vocab_size=rows + 3)
    before = (base / "tokenizer.json").read_bytes()
    hub.add("authors/base", base)
    torch.save({}, base / "pytorch_model.bin")
    (tmp_path / "alone").mkdir()
    (source / "model.safetensors").rename(tmp_path / "alone" / "model.safetensors")
    alone = hub.add("authors/prm", tmp_path / "alone", folder="zeta-4/")
    options = ("--subfolder", "zeta-4", "--config-from", f"authors/base@{hub.commit}", "--preset", "pqm")
    found = command(alone, *options)
    assert hub.names() == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert found["source"] == f"{alone}/zeta-4 with the configuration of authors/base@{hub.commit}"
    assert found["notes"] == [
        f"vocab_size is {rows} as in the weights, not {rows + 3}",
        f"'[PRM]' was added to the tokenizer as token {rows - 1}",
    ]
    assert served_promises(store.resolve("foreign"), STEPS) == pytest.approx(expected, abs=1e-5)
    assert (find_source(f"authors/base@{hub.commit}", endpoint=hub.url) / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize(("repository", "message"), [("gated", "is gated"), ("absent", "the hub has no")])
def test_what_the_hub_does_not_show_is_refused(hub: FakeHub, classifier: Path, repository: str, message: str) -> None:
    hub.add("someone/gated", classifier)
    hub.gated.add("someone/gated")
    with pytest.raises(CheckpointError, match=message):
        find_source(f"someone/{repository}@{hub.commit}", endpoint=hub.url)
    with pytest.raises(CheckpointError, match=message):
        pinned(f"someone/{repository}@refs/pr/1", endpoint=hub.url)
    assert hub.downloaded == []
