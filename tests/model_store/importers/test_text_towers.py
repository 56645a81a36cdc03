"""Composite checkpoints: their text tower alone scores as the whole model does on text."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    Gemma3ForSequenceClassification,
    Qwen3_5ForSequenceClassification,
)

from model_store.format.store import Store
from model_store.importers.text_tower import TOWERS, text_config, text_names
from model_store.network.tensors import tensor_shapes
from tests.model_store.authors import STEPS, TASK
from tests.model_store.authors_of_logits import at_tag
from tests.model_store.composites import KINDS, composite_config, make_composite, whole_logits
from tests.model_store.importers.importing import add, refused, served_promises, shard
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    add_head,
    byte_level,
    edit_config,
    floats,
    save,
    sentence_piece,
    weights_of,
    whole,
)

COMMON = ("qwen3_vl", "qwen3_5", "gemma3", "mistral3")


def assert_scores_as_the_whole(store: Store, source: Path) -> None:
    """Reads ``math-shepherd`` from the whole model's logits, and from what was imported."""
    tokenizer = sentence_piece()
    ids = whole(tokenizer, f"<s>{TASK} " + "\n".join(f"{step} ки" for step in STEPS))
    pair = whole_logits(source, ids)[:, whole(tokenizer, "+ -")].softmax(-1)[:, 0]
    expected = floats(pair[at_tag(tokenizer, ids, "ки")])
    imported = add(store, source, preset="math-shepherd")
    assert served_promises(imported.checkpoint, STEPS) == pytest.approx(expected, abs=1e-5)
    assert "left out: " in imported.notes[0]
    assert not any("vis" in name for name in tensor_shapes(imported.checkpoint.path))


def test_every_kind_that_is_imported_is_compared_with_its_whole_model() -> None:
    assert set(KINDS) == TOWERS


@pytest.mark.parametrize(
    "kind", [kind if kind in COMMON else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_text_tower_scores_as_the_whole_model(store: Store, tmp_path: Path, kind: str) -> None:
    make_composite(tmp_path / "source", kind, sentence_piece(), bos="<s>")
    assert_scores_as_the_whole(store, tmp_path / "source")


def test_a_configuration_with_the_text_towers_fields_at_its_top_is_read(store: Store, tmp_path: Path) -> None:
    """As Qwen2-VL was published."""
    source = tmp_path / "source"
    make_composite(source, "qwen2_vl", sentence_piece(), bos="<s>")
    config = json.loads((source / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    flat = {**text, **config, "rope_theta": rope["rope_theta"]}
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    (source / "config.json").write_text(json.dumps(flat))
    assert_scores_as_the_whole(store, source)


LAYOUTS = {
    "language_model.model.": "model.language_model.",  # since transformers 4.52
    "language_model.lm_head.": "lm_head.",
    "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


def test_old_and_new_names_of_the_tensors_score_alike(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_composite(source, "gemma3", sentence_piece(), bos="<s>")
    weights = weights_of(source)
    assert any(name.startswith("language_model.model.") for name in weights), "the old names"
    for old, new in LAYOUTS.items():
        weights = {name.replace(old, new, 1) if name.startswith(old) else name: weights[name] for name in weights}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    shard(source)
    assert_scores_as_the_whole(store, source)


@pytest.mark.parametrize(
    ("kind", "whole_class"),
    [("gemma3", Gemma3ForSequenceClassification), ("qwen3_5", Qwen3_5ForSequenceClassification)],
)
def test_a_classifier_over_a_composite_is_read_by_its_text_tower(
    store: Store, tmp_path: Path, kind: str, whole_class: Any
) -> None:
    tokenizer, source = byte_level(CHATML_TOKENS), tmp_path / "source"
    model = whole_class(composite_config(kind, tokenizer, num_labels=1))
    save(source, model, tokenizer, bos="<|im_start|>", chat=CHATML)
    model = whole_class.from_pretrained(source).eval()
    expected = classified(tokenizer, lambda ids: model(input_ids=ids).logits[0, 0])
    imported = add(store, source)
    assert imported.preset == "sequence-classification"
    assert served_promises(imported.checkpoint, STEPS) == pytest.approx(expected, abs=1e-5)


def test_a_head_over_a_whole_model_that_transformers_has_no_class_for(store: Store, tmp_path: Path) -> None:
    """``Qwen3VLForSequenceClassification``, as other trainers save it."""
    tokenizer, source = byte_level(CHATML_TOKENS), tmp_path / "source"
    model = AutoModel.from_config(composite_config("qwen3_vl", tokenizer))
    save(source, model, tokenizer, bos="<|im_start|>", chat=CHATML)
    base = AutoModel.from_pretrained(source).eval()
    weights = {f"model.{name.removeprefix('model.')}": tensor for name, tensor in weights_of(source).items()}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    add_head(source, "Qwen3VLForSequenceClassification", {"score": nn.Linear(32, 1, bias=False)})
    score = load_file(source / "model.safetensors")["score.weight"]
    expected = classified(tokenizer, lambda ids: (base(input_ids=ids).last_hidden_state[0, -1] @ score.T)[0])
    assert served_promises(add(store, source).checkpoint, STEPS) == pytest.approx(expected, abs=1e-5)


LAYER = "layers.0.mlp.down_proj"
ADAPTED = {
    "qwen3_vl": {name: name for name in (f"model.language_model.{LAYER}", "model.visual.blocks.0.mlp.linear_fc1")},
    "gemma3": {f"language_model.model.{LAYER}": f"model.language_model.{LAYER}"},
}
"""Layers by their names in the base and in the adapter: transformers has renamed them."""


@pytest.mark.parametrize("kind", ADAPTED)
def test_an_adapter_over_a_whole_model_is_merged_before_its_text_tower_is_taken(
    store: Store, tmp_path: Path, kind: str
) -> None:
    source, adapter, merged = tmp_path / "source", tmp_path / "adapter", tmp_path / "merged"
    make_composite(source, kind, sentence_piece(), bos="<s>")
    make_composite(merged, kind, sentence_piece(), bos="<s>")
    weights, tensors = weights_of(merged), dict[str, torch.Tensor]()
    for layer, adapted in ADAPTED[kind].items():
        rows, columns = weights[f"{layer}.weight"].shape
        down, up = torch.randn(4, columns), torch.randn(rows, 4)
        weights[f"{layer}.weight"] += 2 * up @ down
        tensors |= {f"base_model.model.{adapted}.lora_A.weight": down, f"base_model.model.{adapted}.lora_B.weight": up}
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    expected = add(Store(tmp_path / "merged-store"), merged, preset="math-shepherd").raw
    imported = add(store, adapter, source, preset="math-shepherd")
    assert imported.raw == pytest.approx(expected, abs=1e-5)
    assert "left out: " in imported.notes[0]


@torch.inference_mode()
def classified(tokenizer: Any, score: Any) -> list[float]:
    """The sigmoid of a score at the end of each prefix of the chat."""
    text, found = f"<|im_start|>user\n{TASK}<|im_end|>\n", []
    for step in STEPS:
        text += f"<|im_start|>assistant\n{step}<|im_end|>\n"
        found.append(torch.sigmoid(score(torch.tensor([whole(tokenizer, text)]))).item())
    return found


SPARSE: dict[str, dict[str, Any]] = {
    "gemma3": {  # as Gemma 3 4B was published
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "llava": {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "vocab_size": 32064},
}
"""Text configurations that leave most to the defaults of the whole."""


@pytest.mark.parametrize("kind", SPARSE)
def test_fields_that_a_configuration_leaves_out_have_the_wholes_defaults(tmp_path: Path, kind: str) -> None:
    config = {"model_type": kind, "text_config": SPARSE[kind], "torch_dtype": "bfloat16"}
    found = text_config(config)
    assert found is not None
    assert found["dtype"] == "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(found))
    alone, within = AutoConfig.from_pretrained(tmp_path), CONFIG_MAPPING[kind].from_dict(config).text_config
    named = {"_name_or_path", "architectures", "dtype", "tie_word_embeddings"}
    assert {name: value for name, value in alone.to_dict().items() if name not in named} == {
        name: value for name, value in within.to_dict().items() if name not in named
    }


def test_a_wrapper_around_the_whole_model_is_taken_off() -> None:
    names = ("model.language_model.layers.0.a", "model.language_model.norm.weight", "model.visual.blocks.0.a")
    wrapped = [f"pretrained_model.{name}" for name in (*names, "lm_head.weight")]
    found = text_names([*wrapped, "v_head.summary.weight"])
    assert sorted(found.renamed.values()) == [
        "lm_head.weight",
        "model.layers.0.a",
        "model.norm.weight",
        "v_head.summary.weight",
    ]
    assert found.left_out == ["visual"]


def test_a_text_tower_that_cannot_stand_alone_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_composite(source, "gemma3", sentence_piece(), bos="<s>")
    edit_config(source, model_type="paligemma")
    refused(store, source, "paligemma is made of several towers", preset="math-shepherd")
    edit_config(source, model_type="gemma3", text_config={"quantization_config": {"quant_method": "awq"}})
    refused(store, source, "is quantised", preset="math-shepherd")
    edit_config(source, text_config=[])
    refused(store, source, r"config\.json cannot be read", preset="math-shepherd")


def test_a_tensor_of_no_known_tower_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_composite(source, "gemma3", sentence_piece(), bos="<s>")
    weights = weights_of(source)
    save_file({**weights, "model.memory.weight": torch.zeros(1)}, source / "model.safetensors")
    refused(store, source, r"model\.memory\.weight belongs to no known tower", preset="math-shepherd")
    no_text = {name: tensor for name, tensor in weights.items() if "language_model" not in name}
    save_file(no_text, source / "model.safetensors")
    refused(store, source, "text tower cannot be told from the others", preset="math-shepherd")
