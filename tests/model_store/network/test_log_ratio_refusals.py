"""Pairs of language models and recipes that a log-ratio cannot be made of, and what its digest covers."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from model_store.__main__ import main
from model_store.errors import CheckpointCorrupt, CheckpointError, ManifestInvalid
from model_store.format.store import Checkpoint, Store
from model_store.network.model import load_model
from tests.model_store.network.ratios import add, make_pair
from tests.model_store.tiny_checkpoints import (
    CHATML_TOKENS,
    byte_level,
    edit_config,
    weights_of,
)


def test_the_digest_and_the_refusals_cover_the_reference(tmp_path: Path) -> None:
    make_pair(tmp_path)
    published, store = add(tmp_path).checkpoint, Store(tmp_path / "store")
    assert store.resolve("ratio") == published
    edit_config(published.path / "reference", rms_norm_eps=0.5)
    with pytest.raises(CheckpointCorrupt, match="has changed since it was published"):
        store.resolve("ratio")
    (published.path / "reference" / "modeling_x.py").write_text("raise SystemExit")
    with pytest.raises(CheckpointCorrupt, match="is code"):
        store.resolve("ratio")


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"reference": None}, "a log_ratio needs a --reference"),
        ({"beta": None}, "score: beta must be positive"),
        ({"beta": 0.0}, "score: beta must be positive"),
        ({"beta": -0.5}, "score: beta must be positive"),
        ({"preset": "llemma", "beta": None}, "a log_ratio needs a --reference, .* and no other head does"),
        ({"preset": "llemma", "reference": None}, "score: beta .* goes with no other"),
    ],
)
def test_what_a_ratio_lacks_is_said_in_a_sentence(wanted: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    make_pair(tmp_path)
    with pytest.raises((CheckpointError, ManifestInvalid), match=complaint):
        add(tmp_path, **wanted)
    assert Store(tmp_path / "store").references() == []


def test_a_reference_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    byte_level([*CHATML_TOKENS, "<more>"]).save(str(tmp_path / "reference" / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has another tokenizer than the policy"):
        add(tmp_path)


def test_a_reference_with_a_smaller_vocabulary_is_refused(tmp_path: Path) -> None:
    rows = make_pair(tmp_path).token_to_id("<|im_start|>")
    whole = weights_of(tmp_path / "reference")
    cut = {
        name: tensor[:rows].clone() if name.endswith(("embed_tokens.weight", "head.weight")) else tensor
        for name, tensor in whole.items()
    }
    save_file(cut, tmp_path / "reference" / "model.safetensors", metadata={"format": "pt"})
    edit_config(tmp_path / "reference", vocab_size=rows)
    with pytest.raises(CheckpointError, match=f"closes name {rows}, the output layer knows {rows} tokens"):
        add(tmp_path)


def test_a_checkpoint_without_its_reference_does_not_load(tmp_path: Path) -> None:
    make_pair(tmp_path)
    checkpoint = add(tmp_path).checkpoint
    with pytest.raises(CheckpointCorrupt, match="has no directory reference"):
        load_model(Checkpoint(tmp_path / "policy", checkpoint.manifest), "cpu", "auto")


@pytest.mark.parametrize(
    ("speech", "complaint"),
    [
        ({"opens": "Step", "closes": "<|im_end|>"}, "opens must begin with a special token"),
        ({"opens": "<|im_start|>", "closes": "left"}, "closes must be a special token"),
        ({"opens": "<extra_0>", "closes": "<|im_end|>"}, "find nothing that the agent says"),
    ],
)
def test_a_recipe_that_cannot_tell_who_speaks_is_refused(
    speech: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    make_pair(tmp_path)
    score = {"head": "log_ratio", "activation": "sigmoid", "beta": 1.0, **speech}
    texts = {"begin": "", "task": ["{start}", "{user_end}"], "observation": ["{user}", "{user_end}"]}
    template = {**texts, "action": ["{assistant}", "{assistant_end}"], "tokenise": "text"}
    (tmp_path / "mine.json").write_text(json.dumps({"score": score, "template": template}))
    with pytest.raises(CheckpointError, match=complaint):
        add(tmp_path, preset=None, beta=None, recipe=tmp_path / "mine.json")


def test_the_command_adds_a_policy_with_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pair(tmp_path)
    where = ["--store", str(tmp_path / "store"), "--name", "ratio", "--version", "1", "--preset", "implicit-prm"]
    both = [str(tmp_path / "policy"), "--reference", str(tmp_path / "reference"), "--beta", "0.05"]
    assert main(["add", *both, *where]) == 0
    assert "log_ratio; 0.05 x" in capsys.readouterr().out
