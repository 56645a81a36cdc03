"""Score recipes: what a manifest may say, and the head and the promise that follow from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, LlamaConfig, PhiConfig

from model_store.errors import CheckpointCorrupt, ManifestInvalid
from model_store.format.manifest import Manifest, parse_manifest
from model_store.format.recipe import Calibration, ScoreRecipe
from model_store.format.store import Checkpoint, Store, compute_digest
from model_store.format.template import Template
from model_store.network.head_loading import layered_head
from model_store.network.model import load_model
from tests.model_store.tiny_checkpoints import byte_level, config_of, logits, save, weights_of

HIDDEN = 16
LINEAR = ScoreRecipe("linear", "sigmoid", "action_end")
IDS = [3, 50, 7, 99, 1]


def parsed(manifest: Manifest, score: dict[str, Any]) -> ScoreRecipe:
    data = json.loads(replace(manifest, digest="sha256:0").to_json())
    return parse_manifest(json.dumps(data | {"score": {"read": "action_end", **score}})).score


@pytest.mark.parametrize(
    "score",
    [
        {"head": "linear", "activation": "identity"},
        {"head": "linear", "activation": "softmax", "output": 1},
        {"head": "linear", "activation": "sigmoid", "layers": ["v_head.summary"], "direction": "lower"},
        {"head": "mlp", "activation": "softmax", "layers": ["score.0", "score.2"], "output": 0},
        {"head": "token", "activation": "identity", "tokens": [0]},
        {"head": "token_pair", "activation": "softmax", "tokens": [648, 387]},
        {"head": "vocabulary_mean", "activation": "sigmoid", "calibration": {"a": 2, "b": -0.5}},
    ],
)
def test_a_recipe_is_read_as_it_was_written(manifest: Manifest, score: dict[str, Any]) -> None:
    recipe = parsed(manifest, score)
    written = json.loads(replace(manifest, score=recipe).to_json())["score"]
    assert written == {"read": "action_end", **score}


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"head": "linear", "activation": "softmax"}, "score: activation"),
        ({"head": "token", "activation": "softmax", "tokens": [1]}, "score: activation"),
        ({"head": "token_pair", "activation": "sigmoid", "tokens": [1, 2]}, "score: activation must be softmax"),
        ({"head": "linear", "activation": "sigmoid", "layers": []}, "score: layers must name one layer"),
        ({"head": "mlp", "activation": "sigmoid"}, "score: layers must name two layers or more"),
        ({"head": "token", "activation": "sigmoid", "tokens": [1], "layers": ["x"]}, "layers must name nothing"),
        ({"head": "linear", "activation": "sigmoid", "output": -1}, "score: output"),
        ({"head": "linear", "activation": "sigmoid", "output": None}, "output must be a whole number"),
        ({"head": "linear", "activation": "sigmoid", "output": True}, "output must be a whole number"),
        ({"head": "token", "activation": "sigmoid", "tokens": [1], "output": 0}, "score: output"),
        ({"head": "token_pair", "activation": "softmax", "tokens": [1, 1]}, "tokens must hold 2 different"),
        ({"head": "token_pair", "activation": "softmax", "tokens": [-1, 1]}, "tokens must hold 2 different"),
        ({"head": "token_pair", "activation": "softmax", "tokens": ["+", "-"]}, r"tokens\[0\] must be a whole number"),
        ({"head": "token_pair", "activation": "softmax", "tokens": 5}, "tokens must be a list"),
        ({"head": "linear", "activation": "sigmoid", "tokens": [1]}, "tokens must hold 0"),
        ({"head": "linear", "activation": "identity", "direction": "lower"}, "score: direction lower"),
        ({"head": "linear", "activation": "sigmoid", "direction": "up"}, "direction must be one of"),
        (
            {"head": "linear", "activation": "sigmoid", "calibration": {"a": 0, "b": 1}},
            "needs a positive a",
        ),
        ({"head": "linear", "activation": "sigmoid", "calibration": {"a": 1}}, "calibration: b is missing"),
        ({"head": "linear", "activation": "sigmoid", "calibration": {"a": 10**400, "b": 0}}, "a must be a number"),
        ({"head": "generate", "activation": "sigmoid"}, "head must be one of"),
        ({"head": "linear", "activation": "sigmoid", "read": "last"}, "read must be one of"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_with_the_field(
    manifest: Manifest, score: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        parsed(manifest, score)


def test_a_field_at_its_default_changes_no_digest(store: Store, source: Path, manifest: Manifest) -> None:
    published = store.publish(source, manifest)
    path = published.path / "prm.json"
    data = json.loads(path.read_text())
    assert set(data["score"]) == {"head", "activation", "read"}
    assert set(data["template"]) == {"begin", "task", "observation", "action"}
    data["score"] |= {"layers": ["score"], "tokens": [], "direction": "higher"}
    data["template"] |= {"next": "", "tokenise": "segments", "strip": False}
    path.write_text(json.dumps(data))
    assert store.resolve("tiny@1") == published


def test_every_other_value_changes_the_digest(source: Path, manifest: Manifest) -> None:
    changes: list[dict[str, Any]] = [
        {"score": replace(LINEAR, layers=("v_head.summary",))},
        {"score": replace(LINEAR, output=0)},
        {"score": replace(LINEAR, direction="lower")},
        {"score": replace(LINEAR, calibration=Calibration(1.0, 0.0))},
        {"template": replace(manifest.texts, next="\n")},
        {"template": replace(manifest.texts, tokenise="text")},
        {"template": replace(manifest.texts, skip_empty_observation=True)},
        {"template": replace(manifest.texts, strip=True)},
    ]
    made = [manifest, *(replace(manifest, **change) for change in changes)]
    digests = {compute_digest(source, changed) for changed in made}
    assert len(digests) == len(made)


def test_a_calibration_replaces_the_activation() -> None:
    calibrated = replace(LINEAR, activation="identity", calibration=Calibration(2.0, -1.0))
    assert calibrated.promise(0.5) == pytest.approx(0.5)
    assert calibrated.promise(-1e9) == 0
    warm = replace(LINEAR, calibration=Calibration(1 / 3, 0.0))  # temperature 3
    assert warm.promise(3.0) == pytest.approx(LINEAR.promise(1.0))


def write_head(path: Path, **tensors: Tensor) -> None:
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, path / "model.safetensors")


@pytest.mark.parametrize("outputs", [2, 3, 5])
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_softmax_is_the_probability_of_its_output_among_all(tmp_path: Path, outputs: int, direction: Any) -> None:
    weight, bias = torch.randn(outputs, HIDDEN), torch.randn(outputs)
    write_head(tmp_path, score__weight=weight, score__bias=bias)
    hidden = torch.randn(1, 4, HIDDEN)
    expected = (hidden @ weight.T + bias).softmax(-1)
    for output in range(outputs):
        recipe = replace(LINEAR, activation="softmax", output=output, direction=direction)
        raw = layered_head(tmp_path, recipe, HIDDEN)(hidden)[0].detach()
        wanted = expected[0, :, output] if direction == "higher" else 1 - expected[0, :, output]
        assert [recipe.promise(value) for value in raw.tolist()] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_one_of_several_outputs_can_be_read_by_itself(tmp_path: Path) -> None:
    """A head may give a value and an advantage, for example."""
    weight, bias = torch.randn(2, HIDDEN), torch.randn(2)
    write_head(tmp_path, score__weight=weight, score__bias=bias)
    hidden = torch.randn(1, 4, HIDDEN)
    for output in range(2):
        raw = layered_head(tmp_path, replace(LINEAR, output=output), HIDDEN)(hidden).detach()
        assert raw == pytest.approx(hidden @ weight[output] + bias[output], abs=1e-5)


MLP = ScoreRecipe("mlp", "sigmoid", "action_end", layers=("score.0", "score.2"))


@pytest.mark.parametrize(
    ("change", "recipe", "message"),
    [
        (lambda tensors: tensors.pop("score.2.weight"), MLP, r"no tensor score\.2\.weight"),
        (lambda tensors: tensors.update({"score.0.weight": torch.zeros(8, 15)}), MLP, r"needs \[outputs, 16\]"),
        (lambda tensors: tensors.update({"score.2.weight": torch.zeros(1, 9)}), MLP, r"needs \[outputs, 8\]"),
        (lambda tensors: tensors.update({"score.0.bias": torch.zeros(7)}), MLP, r"its weight needs \[8\]"),
        (lambda tensors: tensors.update({"score.2.weight": torch.zeros(2, 8)}), MLP, "score.output None"),
        (lambda _: None, replace(MLP, output=1), "1 outputs, which do not fit"),
        (lambda _: None, replace(MLP, output=0, activation="softmax"), "1 outputs, which do not fit"),
        (lambda tensors: tensors["score.2.weight"].fill_(float("nan")), MLP, "holds NaN or infinity"),
        (lambda tensors: tensors["score.0.bias"].fill_(float("inf")), MLP, "holds NaN or infinity"),
        (lambda tensors: tensors.update({"score.0.bias": torch.zeros(8).long()}), MLP, "floating point"),
    ],
)
def test_head_tensors_that_do_not_fit_are_one_sentence(
    tmp_path: Path, change: Callable[[Any], object], recipe: ScoreRecipe, message: str
) -> None:
    tensors = {
        "score.0.weight": torch.zeros(8, 16),
        "score.0.bias": torch.zeros(8),
        "score.2.weight": torch.zeros(1, 8),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    layered_head(tmp_path, MLP, HIDDEN)
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointCorrupt, match=message):
        layered_head(tmp_path, recipe, HIDDEN)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_published_head_with_nan_or_infinity_is_refused(published: Checkpoint, value: float) -> None:
    weights = load_file(published.path / "model.safetensors")
    weights["score.weight"][0, 3] = value
    save_file(weights, published.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointCorrupt, match=r"score\.weight holds NaN or infinity"):
        load_model(published, "cpu", "auto")


def language_model(path: Path, kind: Any = LlamaConfig, **more: Any) -> Checkpoint:
    tokenizer = byte_level(["<s>"])
    save(path, AutoModelForCausalLM.from_config(config_of(kind, tokenizer, **more)), tokenizer)
    return Checkpoint(path, MANIFEST)


MANIFEST = Manifest(
    format=1,
    name="words",
    version="1",
    base_model="random",
    score=LINEAR,
    template=Template(begin="", task=("", ""), observation=("", ""), action=("", "\n")),
    render_version=1,
    dtype="float32",
    context_length=64,
    training={},
    evaluation={},
)


def raw_of(checkpoint: Checkpoint, score: ScoreRecipe) -> Tensor:
    model = load_model(replace(checkpoint, manifest=replace(checkpoint.manifest, score=score)), "cpu", "auto")
    raw: Tensor = model(torch.tensor([IDS]))[0]
    return raw


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_token_heads_read_the_logits_of_the_language_model(tmp_path: Path, *, tied: bool, cap: float | None) -> None:
    kind, more = (LlamaConfig, {}) if cap is None else (Gemma2Config, {"final_logit_softcapping": cap})
    checkpoint = language_model(tmp_path, kind, tie_word_embeddings=tied, **more)
    assert ("lm_head.weight" in weights_of(tmp_path)) is not tied
    expected = logits(tmp_path, IDS)
    single = raw_of(checkpoint, ScoreRecipe("token", "sigmoid", "action_end", tokens=(7,)))
    assert single == pytest.approx(expected[:, 7], abs=1e-5)
    pair = raw_of(checkpoint, ScoreRecipe("token_pair", "softmax", "action_end", tokens=(7, 9)))
    assert pair.sigmoid() == pytest.approx(expected[:, [7, 9]].softmax(-1)[:, 0], abs=1e-5)


def test_token_heads_add_the_bias_of_the_output_layer(tmp_path: Path) -> None:
    checkpoint = language_model(tmp_path, PhiConfig)
    weights = weights_of(tmp_path)
    weights["lm_head.bias"].normal_(generator=torch.Generator().manual_seed(1))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    expected = logits(tmp_path, IDS)
    pair = raw_of(checkpoint, ScoreRecipe("token_pair", "softmax", "action_end", tokens=(7, 9)))
    assert pair == pytest.approx(expected[:, 7] - expected[:, 9], abs=1e-5)
    mean = raw_of(checkpoint, ScoreRecipe("vocabulary_mean", "sigmoid", "action_end"))
    assert mean == pytest.approx(expected.mean(-1), abs=1e-5)
    weights["lm_head.bias"] = weights["lm_head.bias"][:3].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointCorrupt, match=r"lm_head\.bias has shape \[3\]"):
        raw_of(checkpoint, ScoreRecipe("token", "sigmoid", "action_end", tokens=(7,)))


def test_token_heads_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    token = ScoreRecipe("token", "sigmoid", "action_end", tokens=(100_000,))
    mean = ScoreRecipe("vocabulary_mean", "sigmoid", "action_end")
    llama = language_model(tmp_path / "llama")
    with pytest.raises(CheckpointCorrupt, match="names 100000, the output layer knows"):
        raw_of(llama, token)
    capped = language_model(tmp_path / "gemma", Gemma2Config, final_logit_softcapping=2.0)
    with pytest.raises(CheckpointCorrupt, match="soft-capped"):
        raw_of(capped, mean)
    scaled = language_model(tmp_path / "cohere", CohereConfig, logit_scale=0.25)
    with pytest.raises(CheckpointCorrupt, match="logit_scale"):
        raw_of(scaled, mean)
    weights = weights_of(llama.path)
    del weights["lm_head.weight"]
    save_file(weights, llama.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointCorrupt, match=r"no tensor lm_head\.weight"):
        raw_of(llama, mean)
