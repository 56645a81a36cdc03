"""The probe and the engine that it selects, for models that can share prefixes and for models that cannot."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointTooLarge
from model_store.format.store import Store
from service.engine import probe, row_attention, selection
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.row_plan import Row
from service.engine.selection import choose_engine, load_engine
from service.settings import CHECKPOINTS
from tests.service.engine.references import BATCH, CONTEXT_LENGTH, FAMILIES, UNBOUNDED, Reference, new_tokens
from tests.service.engine.sharp_models import sharp_model

MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
LINEAR = {f"linear_{name}": size for name, size in [("num_value_heads", 2), ("num_key_heads", 2)]}
LINEAR |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64, "factor": 1.0}
LONGROPE |= {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}


def name_of(value: Any) -> str:
    return getattr(value, "model_type", "")


@pytest.mark.parametrize(
    ("config", "shape", "reason"),
    [
        (MistralConfig, {"sliding_window": 63}, "as few as 63 tokens, and the context has 64"),
        (MistralConfig, {"sliding_window": 8}, "as few as 8 tokens"),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "as few as 8 tokens"),
        (Gemma3TextConfig, {"sliding_window": 8}, "as few as 8 tokens"),
        (Gemma2Config, {"sliding_window": 64}, "softcap"),
        (GptOssConfig, {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64}, "s_aux"),
        (Qwen3NextConfig, {"num_hidden_layers": 4, "num_experts": 4, **MOE, **LINEAR}, "layer_types: linear_attention"),
        (LlamaConfig, {"position_offset": 3}, "position_offset: 3, whose effect on attention is not known"),
    ],
    ids=name_of,
)
def test_a_model_whose_attention_cannot_be_joined_is_scored_in_padded_rows(
    config: type[PreTrainedConfig], shape: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    reference = Reference(sharp_model(config, **shape))
    chosen = choose_engine(deepcopy(reference.model), prefix_cache_bytes=UNBOUNDED, context_length=CONTEXT_LENGTH)
    assert isinstance(chosen, PaddedEngine)
    assert reason in caplog.text
    lens = [len(token_ids) for token_ids in BATCH]
    assert reference.assert_scored(chosen, BATCH) == chosen.extend_lens(BATCH) == lens


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        *((family, {}) for family in FAMILIES),
        (MistralConfig, {"sliding_window": 64}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}),
        (Gemma3TextConfig, {"sliding_window": 64}),
        (LlamaConfig, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        (LlamaConfig, {"rope_parameters": LONGROPE}),
    ],
    ids=name_of,
)
def test_a_model_whose_windows_and_rope_thresholds_cover_the_context_shares_prefixes(
    config: type[PreTrainedConfig], shape: dict[str, Any]
) -> None:
    reference = Reference(sharp_model(config, **shape))
    chosen = choose_engine(deepcopy(reference.model), prefix_cache_bytes=UNBOUNDED, context_length=CONTEXT_LENGTH)
    assert isinstance(chosen, PrefixEngine)
    assert chosen.prefix_cache.used_bytes == 0, "the probe leaves nothing behind"
    assert sum(reference.assert_scored(chosen, BATCH)) == sum(new_tokens(reference.engine(), BATCH))


join, attend = row_attention._join, row_attention.attend
MISTAKES: dict[str, tuple[object, str, object]] = {
    "contexts left out": (row_attention, "_join", lambda *_: None),
    "contexts joined without their weight": (
        row_attention,
        "_join",
        lambda out, lse, *context: join(out, lse.clone(), *context),
    ),
    "positions of the row": (Row, "positions", lambda row: list(range(row.tokens))),
    "siblings that see each other": (
        row_attention,
        "_own",
        lambda q, k, v, _, scale: attend(q, k, v, scale, causal=True),
    ),
    "a model that raises": (row_attention, "_own", lambda *_: 1 / 0),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_engine_that_is_subtly_wrong_is_refused(
    qwen2: Reference, mistake: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(owner, name, wrong)
    chosen = choose_engine(deepcopy(qwen2.model), prefix_cache_bytes=UNBOUNDED, context_length=CONTEXT_LENGTH)
    assert isinstance(chosen, PaddedEngine)
    assert "prefixes are not shared for Qwen2Model" in caplog.text
    qwen2.assert_scored(chosen, BATCH)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_shares_prefixes_within_its_own_noise(dtype: torch.dtype) -> None:
    model = sharp_model(Qwen2Config)
    backbone: torch.nn.Module = model.backbone
    backbone.to(dtype)
    reference = Reference(model)
    chosen = choose_engine(deepcopy(model), prefix_cache_bytes=UNBOUNDED, context_length=CONTEXT_LENGTH)
    assert isinstance(chosen, PrefixEngine)
    reads = [range(len(token_ids)) for token_ids in BATCH]
    for scores, token_ids in zip(chosen.score(BATCH, reads), BATCH, strict=True):
        assert scores.raw == pytest.approx(reference.expected(token_ids), abs=4 * probe.TOLERANCE[dtype])


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="this machine has the device")
def test_a_missing_device_is_refused_in_one_sentence() -> None:
    checkpoint: Any = None
    with pytest.raises(AgentPRMError, match="device cuda:7 is not there"):
        load_engine(checkpoint, "cuda:7", "auto", prefix_cache_bytes=0, cpu_threads=1)


def test_a_checkpoint_too_large_for_memory_is_refused_before_a_weight_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Store(CHECKPOINTS).resolve("demo")
    needed = 4 * 379_968
    monkeypatch.setattr(selection, "free_bytes", lambda _: needed - 1)
    monkeypatch.setattr(selection, "load_model", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CheckpointTooLarge, match=r"^textcraft-demo@1 needs 0\.0 GiB on cpu and 0\.0 GiB are free$"):
        selection.load_engine(checkpoint, "cpu", "float32", prefix_cache_bytes=0, cpu_threads=1)
    monkeypatch.setattr(selection, "free_bytes", lambda _: needed)
    selection.check_fits(checkpoint, "cpu", "float32")
    monkeypatch.setattr(selection, "free_bytes", lambda _: needed // 2)
    selection.check_fits(checkpoint, "cpu", "bfloat16")
