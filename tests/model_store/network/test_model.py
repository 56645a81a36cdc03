"""The model against plain transformers classes, over families."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from model_store.errors import CheckpointCorrupt, CheckpointError
from model_store.format.manifest import Manifest
from model_store.format.store import Checkpoint, Store
from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, load_model, new_model, save_model, score_rows

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES: list[type[PreTrainedConfig]] = [Qwen2Config, Qwen3Config, LlamaConfig, MistralConfig, GemmaConfig]
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)


def random_model(family: type[PreTrainedConfig]) -> RewardModel:
    model = new_model(family(**SHAPE), seed=0).eval()
    with torch.no_grad():
        next(model.head.parameters()).normal_(generator=torch.Generator().manual_seed(1))
    return model


@families
def test_saved_weights_score_the_same_in_plain_transformers(family: type[PreTrainedConfig], tmp_path: Path) -> None:
    model = random_model(family)
    save_model(model, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    token_ids = torch.randint(1, 50, (3, 20), generator=torch.Generator().manual_seed(2))
    for length in (1, 7, 20):
        with torch.inference_mode():
            expected = plain(token_ids[:, :length], attention_mask=torch.ones(3, length)).logits[:, 0]
        ours = score_rows(model, token_ids[:, :length].tolist(), [[length - 1]] * 3)
        assert torch.tensor(ours)[:, 0] == pytest.approx(expected, abs=1e-5)


@families
def test_a_row_scores_the_same_alone_and_among_rows_of_other_lengths(family: type[PreTrainedConfig]) -> None:
    model = random_model(family)
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(1, 50, (length,), generator=generator).tolist() for length in (5, 40, 1, 17, 17, 64)]
    reads = [list(range(len(row))) for row in rows]
    together = score_rows(model, rows, reads)
    for row, read, scores in zip(rows, reads, together, strict=True):
        assert score_rows(model, [row], [read])[0] == pytest.approx(scores, abs=1e-5)


def test_the_row_budget_changes_the_batches_and_not_the_scores() -> None:
    model = random_model(Qwen2Config)
    rows = [list(range(1, length)) for length in (2, 30, 9, 12)]
    reads = [[len(row) - 1] for row in rows]
    for budget in (1, 20, 10_000):
        assert torch.tensor(score_rows(model, rows, reads, row_tokens=budget)) == pytest.approx(
            torch.tensor(score_rows(model, rows, reads)), abs=1e-5
        )


def test_a_published_checkpoint_loads_and_scores_as_it_was(published: Checkpoint, source: Path) -> None:
    model = load_model(published, "cpu", "auto")
    weights = load_file(source / "model.safetensors")
    assert isinstance(model.head, LinearHead)
    assert torch.equal(model.head.weight_H, weights["score.weight"][0])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_head_stays_in_float32_whatever_the_backbone(published: Checkpoint) -> None:
    model = load_model(published, "cpu", "bfloat16")
    assert model.backbone.dtype == torch.bfloat16
    assert model.head.weight_H.dtype == torch.float32
    assert model(torch.tensor([[5, 6]])).dtype == torch.float32


def edit_tensors(path: Path, change: Callable[[Any], object]) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("score.weight"), r"no tensor score\.weight"),
        (lambda weights: weights.update({"score.weight": torch.zeros(2, 16)}), r"shape \[2, 16\]"),
        (lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"), "tensors are missing"),
        (lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}), "tiny@1"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(
    published: Checkpoint, change: Callable[[Any], object], message: str
) -> None:
    edit_tensors(published.path, change)
    with pytest.raises(CheckpointCorrupt, match=message):
        load_model(published, "cpu", "auto")


def test_a_truncated_weights_file_is_one_sentence(published: Checkpoint) -> None:
    path = published.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointCorrupt, match="cannot be loaded"):
        load_model(published, "cpu", "auto")


def test_a_context_over_the_backbones_positions_is_refused(store: Store, source: Path, manifest: Manifest) -> None:
    checkpoint = store.publish(source, replace(manifest, context_length=65))
    with pytest.raises(CheckpointCorrupt, match="over the backbone's 64 positions"):
        load_model(checkpoint, "cpu", "auto")


def test_a_directory_without_weights_is_one_sentence(store: Store, source: Path, manifest: Manifest) -> None:
    (source / "model.safetensors").unlink()
    checkpoint = store.publish(source, manifest)
    with pytest.raises(CheckpointCorrupt, match="cannot be loaded"):
        load_model(checkpoint, "cpu", "auto")


def test_splitting_without_accelerate_says_what_to_install(
    published: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_store.network.model.is_accelerate_available", lambda: False)
    load_model(published, "cpu", "auto")
    with pytest.raises(
        CheckpointError,
        match=r"^layers are split over devices through accelerate; pip install 'agentprm\[split\]' brings it",
    ):
        load_model(published, "cpu", "auto", 2)
