"""Fixtures of tiny checkpoints, made in the test."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from model_store.format.manifest import Manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint, Store
from model_store.network.model import new_model, save_model
from training.data.tokenizer import TEMPLATE, build_tokenizer

WORDS = "craft get 1 2 3 4 oak_log stick . : Goal < > / eoa pad"


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        format=1,
        name="tiny",
        version="1",
        base_model="random Qwen2",
        score=ScoreRecipe(head="linear", activation="sigmoid", read="action_end"),
        template=TEMPLATE,
        render_version=1,
        dtype="float32",
        context_length=64,
        training={"gamma": 1.0},
        evaluation={},
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The files of a checkpoint, before it is published."""
    tokenizer = build_tokenizer([WORDS])
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    model = new_model(config, seed=0)
    with torch.no_grad():
        next(model.head.parameters()).normal_(generator=torch.Generator().manual_seed(1))
    path = tmp_path / "source"
    save_model(model, path)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def published(store: Store, source: Path, manifest: Manifest) -> Checkpoint:
    return store.publish(source, manifest)


@pytest.fixture
def second_version(manifest: Manifest) -> Manifest:
    return replace(manifest, version="2")
