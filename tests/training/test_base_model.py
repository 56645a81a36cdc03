"""Bases of training: their text is what serving renders, and their head starts at zero."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from model_store.format.store import Store
from model_store.network.model import score_rows
from model_store.text.loading import render
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, byte_level, config_of, save
from training.base_model import base_text, load_base
from training.bundled import STORE

HISTORY = Trajectory("How many are left?", (Step("", "She eats three."), Step("13", "She has 13 left.")))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("base"), CHATML)


def made(path: Path, chat: str | None) -> Path:
    tokenizer = byte_level(CHATML_TOKENS)
    config: Any = config_of(LlamaConfig, tokenizer)
    save(path, LlamaForCausalLM(config), tokenizer, chat=chat)
    return path


def test_a_base_promises_one_half_for_every_step_and_can_be_trained(language_model: Path, tmp_path: Path) -> None:
    base = load_base(str(language_model), tmp_path / "base", dtype="bfloat16")
    ((token_ids, reads),) = render(base.text.renderer, HISTORY)
    assert score_rows(base.model, [token_ids], [reads]) == [[0, 0]]
    assert base.model.training
    assert all(weight.requires_grad for weight in base.model.parameters())
    assert {weight.dtype for weight in base.model.backbone.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in base.model.head.parameters()} == {torch.float32}
    assert base.text.context_length == 1024


def test_the_text_of_a_base_needs_no_weights(language_model: Path, tmp_path: Path) -> None:
    with base_text(str(language_model), context_length=100) as text:
        base = load_base(str(language_model), tmp_path / "base", dtype="float32", context_length=100)
        assert render(text.renderer, HISTORY) == render(base.text.renderer, HISTORY)
        assert (text.manifest, text.context_length) == (base.text.manifest, 100)
        assert not list(text.checkpoint.path.glob("*.safetensors"))


def test_training_goes_on_from_a_published_checkpoint(tmp_path: Path) -> None:
    base = load_base("demo", tmp_path / "base", Store(STORE), dtype="float32")
    assert base.text.source == "textcraft-demo@1"
    assert all(weight.abs().sum() > 0 for weight in base.model.head.parameters())
    assert base.model.training


@pytest.mark.parametrize(
    ("source", "context_length", "complaint"),
    [
        ("base", 2000, "a context of 2000 tokens is over the 1024 positions of"),
        ("plain", None, "has no chat template, so nothing says how a history becomes its text"),
        ("nowhere", None, "'nowhere' is no directory and no owner/name@commit; a name@version needs --store"),
        ("owner/name", None, "owner/name needs @ and a commit of 40 hex digits"),
    ],
)
def test_a_base_that_cannot_be_used_is_refused_in_a_sentence(
    language_model: Path, tmp_path: Path, source: str, context_length: int | None, complaint: str
) -> None:
    made(tmp_path / "plain", None)
    named = {"base": str(language_model), "plain": str(tmp_path / "plain")}.get(source, source)
    with pytest.raises(AgentPRMError, match=complaint), base_text(named, context_length=context_length):
        pass
