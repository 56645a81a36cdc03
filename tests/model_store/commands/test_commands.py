"""``python -m model_store``, run with the arguments of a user."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from model_store.__main__ import COMMANDS, main
from model_store.format.manifest import Manifest
from model_store.format.store import Checkpoint, Store
from tests.model_store.authors import FAMILIES
from tests.model_store.authors_of_logits import make_language_model
from tests.model_store.tiny_checkpoints import byte_level, sentence_piece, weights_of


class Typed:
    """Runs a command on one store; remembers what it printed."""

    def __init__(self, store: Store, printed: pytest.CaptureFixture[str]) -> None:
        self._store = ["--store", str(store.root)]
        self._printed = printed

    def text(self, *arguments: object, status: int = 0) -> str:
        assert main([*map(str, arguments), *self._store]) == status
        out, err = self._printed.readouterr()
        return err if status and not out else out

    def json(self, *arguments: object, status: int = 0) -> Any:
        return json.loads(self.text(*arguments, "--json", status=status))


@pytest.fixture
def typed(store: Store, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(store, capsys)


def test_the_module_runs_on_the_bundled_store() -> None:
    command = [sys.executable, "-m", "model_store", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "textcraft-demo@1" in [version["checkpoint"] for version in json.loads(done.stdout)]


def test_a_store_is_listed_shown_and_verified(typed: Typed, published: Checkpoint) -> None:
    assert typed.json("alias", "prod", "tiny@1") == {"alias": "prod", "checkpoint": "tiny@1"}
    digest = published.manifest.digest
    assert typed.json("list") == [{"checkpoint": "tiny@1", "aliases": ["prod"], "digest": digest}]
    heading, line = typed.text("list").splitlines()
    assert heading.split() == ["checkpoint", "aliases", "score", "dtype", "context", "digest"]
    assert line.split()[:4] == ["tiny@1", "prod", "linear", "sigmoid"]
    assert typed.json("show", "prod") == json.loads(published.manifest.to_json())
    assert digest in typed.text("show", "prod")
    assert typed.json("verify") == [{"checkpoint": "tiny@1", "sound": True, "error": None}]


def test_an_empty_store_says_so(typed: Typed) -> None:
    assert "no checkpoints in" in typed.text("list")
    assert "no checkpoints in" in typed.text("verify")
    assert "no checkpoint" in typed.text("show", "absent", status=1)


def test_a_changed_version_fails_verification_beside_a_sound_one(
    typed: Typed, store: Store, source: Path, published: Checkpoint, second_version: Manifest
) -> None:
    changed = store.publish(source, second_version)
    (changed.path / "config.json").write_text("{}")
    lines = typed.text("verify", status=1).splitlines()
    assert lines[0] == "tiny@1: sound"
    assert lines[1].startswith("tiny@2: tiny@2 has changed since it was published")
    assert typed.text("verify", "tiny@1") == "tiny@1: sound\n"


def test_a_directory_with_a_manifest_is_published(typed: Typed, store: Store, source: Path, manifest: Manifest) -> None:
    assert "prm.json cannot be read" in typed.text("publish", source, status=1)
    (source / "prm.json").write_text(manifest.to_json())
    found = typed.json("publish", source)
    assert store.resolve("tiny@1").manifest.digest == found["digest"]
    (source / "prm.json").write_text(json.dumps({"name": "x"}))
    assert "base_model" in typed.text("publish", source, status=1)
    assert store.references() == ["tiny@1"]


def test_a_bin_checkpoint_is_converted_added_and_inspected(typed: Typed, store: Store, tmp_path: Path) -> None:
    source, plain = tmp_path / "source", tmp_path / "plain"
    make_language_model(source, LlamaConfig, sentence_piece(), bos="<s>")
    torch.save(weights_of(source), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    adding = ["--name", "shepherd", "--version", "1"]
    noted = "weights converted from .bin: model.safetensors"
    assert noted in typed.text("inspect", source, "--preset", "math-shepherd")
    assert typed.json("convert", source, plain) == {"directory": str(plain), "files": ["model.safetensors"]}
    assert "is there already" in typed.text("convert", source, plain, status=1)
    assert "name a preset" in typed.text("add", plain, *adding, status=1)
    added = typed.json("add", plain, *adding, "--preset", "math-shepherd")
    assert added["checkpoint"] == "shepherd@1"
    assert [step["read_at"] for step in added["sample"]] == ["▁ки", "▁ки"]
    assert (added["prefix_stable"], added["as_whole_text"]) == (True, True)
    assert store.resolve("shepherd").manifest.base_model == "plain"
    inspected = typed.json("inspect", "shepherd")
    assert inspected["sample"] == added["sample"]
    assert inspected["digest"] == added["digest"]
    assert "tokens as from the whole text at once: the same" in typed.text("inspect", "shepherd")


def test_a_checkpoint_is_inspected_without_being_published(typed: Typed, store: Store, tmp_path: Path) -> None:
    FAMILIES["TRL"].make(tmp_path / "source")
    found = typed.json("inspect", tmp_path / "source")
    assert (found["preset"], found["as_whole_text"]) == ("trl-prm", None)
    assert found["recipe"] == "linear; score; output 1; softmax"
    assert r"at the separator '\n', which is assumed" in typed.text("inspect", tmp_path / "source")
    asked = typed.json("inspect", tmp_path / "source", "--separator", r"\n\n")
    assert asked["notes"] == [r"steps are read at the separator '\n\n'"]
    assert asked["sample"] != found["sample"]
    assert store.references() == []


def test_tokens_that_differ_from_the_whole_texts_are_reported(typed: Typed, tmp_path: Path) -> None:
    """The text of this recipe ends a step within a word, where its tokenizer would go on."""
    source, recipe = tmp_path / "source", tmp_path / "mine.json"
    make_language_model(source, LlamaConfig, byte_level(["<s>"]), bos="<s>")
    template = {"begin": "", "task": ["", " "], "observation": ["", ""], "action": ["", " eg"], "next": "gs "}
    score = {"head": "token", "tokens": ["+"], "activation": "sigmoid"}
    recipe.write_text(json.dumps({"score": score, "template": {**template, "tokenise": "text"}}))
    found = typed.json("inspect", source, "--recipe", recipe)
    assert (found["prefix_stable"], found["as_whole_text"]) == (True, False)
    assert "NOT the same" in typed.text("inspect", source, "--recipe", recipe)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Missing command"),
        (["publsh"], "No such command 'publsh'"),
        (["show"], "Missing argument 'reference'"),
        (["add", "x", "--version", "1"], "Missing option '--name'"),
        (["list", "--yaml"], "No such option: --yaml"),
        (["add", "x", "--name", "a", "--version", "1", "--beta", "much"], "Invalid value for '--beta'"),
        (["inspect", "x", "--preset", "nobodys"], "there is no preset 'nobodys'; there are: sequence-classification"),
        (["inspect", "x", "--preset", "pqm", "--recipe", "y"], "--preset and --recipe exclude each other"),
    ],
)
def test_arguments_that_cannot_be_used_end_with_2_and_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(arguments) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert complaint in errors.splitlines()[-1]


def test_a_failure_is_one_sentence_on_stderr(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", "absent", "--store", str(tmp_path)]) == 1
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors == f"agentprm: no checkpoint 'absent' in {tmp_path}; there are: none\n"
    (tmp_path / "aliases.json").mkdir()
    assert main(["list", "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"agentprm: {tmp_path}/aliases.json cannot be read: Is a directory\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert not [line for line in lines if line.endswith("...")]
