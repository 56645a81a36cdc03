"""Foreign checkpoints on their way in: shards, adapters, .bin files, the hub, and what is refused."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen2Config

from model_store.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store
from model_store.format.template import Template
from model_store.importers.hub import find_source
from model_store.importers.importer import Imported, Wanted, add_checkpoint
from model_store.importers.pickles import convert
from model_store.importers.presets import PRESETS
from tests.model_store.authors import make_classifier, make_language_model
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    add_head,
    byte_level,
    edit_config,
    sentence_piece,
    weights_of,
)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    make_classifier(tmp_path / "source", Qwen2Config, CHATML_TOKENS, CHATML)
    return tmp_path / "source"


def add(store: Store, source: Path, base: Path | None = None, **wanted: Any) -> Imported:
    return add_checkpoint(store, source, Wanted("foreign", "1", **wanted), base)


def test_what_was_imported_resolves_and_keeps_its_weights_as_they_are(store: Store, classifier: Path) -> None:
    published = add(store, classifier).checkpoint
    assert store.resolve("foreign") == published
    assert sorted(file.name for file in published.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "prm.json",
        "tokenizer.json",
    ]
    assert (published.path / "model.safetensors").read_bytes() == (classifier / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="published already"):
        add(store, classifier)


def shard(path: Path, files: int = 3) -> None:
    weights = weights_of(path)
    (path / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number in range(files):
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        part = dict(sorted(weights.items())[number::files])
        save_file(part, path / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_shards_score_as_the_whole(store: Store, tmp_path: Path, classifier: Path) -> None:
    whole = add(Store(tmp_path / "whole"), classifier).raw
    shard(classifier)
    assert add(store, classifier).raw == whole


def test_tensors_under_a_prefix_score_as_those_without(store: Store, tmp_path: Path) -> None:
    scores = []
    for prefix in ("", "pretrained_model."):
        source = tmp_path / f"source{prefix}"
        make_language_model(source, LlamaConfig, byte_level(["[PRM]"]), bos="")
        add_head(source, "LlamaForCausalLM", {"v_head.summary": torch.nn.Linear(16, 1, bias=False)}, prefix=prefix)
        if prefix:
            shard(source)
        scores.append(add_checkpoint(store, source, Wanted("pqm", f"1{prefix}", preset="pqm")).raw)
    assert scores[0] == scores[1]


def write_recipe(path: Path, score: dict[str, Any], template: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"score": score, "template": template}))
    return path


LINES = {"begin": "", "task": ["", "\n"], "observation": ["", "\n"], "action": ["", "\n"]}


def test_code_of_a_checkpoints_own_is_not_even_named(store: Store, classifier: Path) -> None:
    edit_config(classifier, auto_map={"AutoModel": "modeling_x.X"})
    (classifier / "modeling_x.py").write_text("raise SystemExit")
    published = add(store, classifier).checkpoint.path
    assert "auto_map" not in (published / "config.json").read_text()
    assert not (published / "modeling_x.py").exists()


def test_a_recipe_of_ones_own_reads_a_head_that_no_family_has(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tokenizer = make_language_model(source, LlamaConfig, byte_level(["<s>"]), bos="<s>")
    add_head(source, "LlamaForValue", {"value_head.out": torch.nn.Linear(16, 2)})
    score = {"head": "linear", "layers": ["value_head.out"], "output": 0, "activation": "sigmoid"}
    imported = add(store, source, recipe=write_recipe(tmp_path / "mine.json", score, LINES | {"begin": "{bos}"}))
    manifest = imported.checkpoint.manifest
    assert manifest.score.layers == ("value_head.out",)
    assert manifest.template.begin == "<s>"
    by_token = write_recipe(tmp_path / "token.json", {"head": "token", "tokens": ["Ġ"], "activation": "sigmoid"}, LINES)
    manifest = add_checkpoint(store, source, Wanted("foreign", "2", recipe=by_token)).checkpoint.manifest
    assert manifest.score.tokens == (tokenizer.token_to_id("Ġ"),)


DOCS = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")


def test_the_docs_know_every_preset_and_field() -> None:
    names = [*PRESETS, *(one.name for kind in (ScoreRecipe, Template) for one in fields(kind))]
    assert [name for name in names if f"`{name}`" not in DOCS] == []


def test_the_recipe_in_the_docs_reads_a_value_head_over_chat_turns(store: Store, tmp_path: Path) -> None:
    source, recipe = tmp_path / "source", tmp_path / "mine.json"
    make_language_model(source, Qwen2Config, byte_level(CHATML_TOKENS), bos="<|im_start|>", chat=CHATML)
    add_head(source, "Qwen2ForValue", {"value_head": torch.nn.Linear(16, 1)})
    recipe.write_text(DOCS.partition("```json")[2].partition("```")[0])
    template = add(store, source, recipe=recipe).checkpoint.manifest.template
    assert template.action == ("<|im_start|>assistant\n", "<|im_end|>\n")


# Adapters
def write_adapter(path: Path, base: Path, **config: Any) -> dict[str, torch.Tensor]:
    """A LoRA adapter of two layers and a head of its own; returns the weights that it stands for."""
    path.mkdir()
    weights, tensors = weights_of(base), dict[str, torch.Tensor]()
    scale = config.get("lora_alpha", 8) / (2 if config.get("use_rslora") else 4)
    for layer in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        rows, columns = weights[f"{layer}.weight"].shape
        if config.get("fan_in_fan_out"):
            rows, columns = columns, rows
        down, up = torch.randn(4, columns), torch.randn(rows, 4)
        tensors |= {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up}
        change = up @ down
        weights[f"{layer}.weight"] += scale * (change.T if config.get("fan_in_fan_out") else change)
    weights["score.weight"] = tensors["base_model.model.score.weight"] = torch.randn(1, 16)
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}))
    return weights


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": 3}, {"fan_in_fan_out": True}], ids=str)
@pytest.mark.parametrize("sharded", [False, True])
def test_an_adapter_is_merged_into_its_base(
    store: Store, tmp_path: Path, classifier: Path, config: dict[str, Any], sharded: bool
) -> None:
    merged = write_adapter(tmp_path / "adapter", classifier, **config)
    if sharded:
        shard(classifier)
    published = add(store, tmp_path / "adapter", classifier).checkpoint
    found: dict[str, torch.Tensor] = {}
    for file in published.path.glob("*.safetensors"):
        found |= load_file(file)
    assert found.keys() == merged.keys()
    for name, tensor in merged.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name


def test_an_adapter_tells_by_its_task_what_it_makes_of_a_language_model(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "base"
    make_language_model(base, Qwen2Config, byte_level(CHATML_TOKENS), bos="<|endoftext|>", chat=CHATML)
    write_adapter(tmp_path / "adapter", base, task_type="SEQ_CLS")
    assert add(store, tmp_path / "adapter", base).preset == "sequence-classification"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "only adapters of peft_type LORA"),
        ({"use_dora": True}, "use_dora is not merged here"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is not merged here"),
        ({"bias": "all"}, "adapters with a bias"),
        ({"r": "4"}, "r and lora_alpha must be numbers"),
    ],
)
def test_an_adapter_that_is_no_plain_sum_is_refused_by_name(
    store: Store, tmp_path: Path, classifier: Path, config: dict[str, Any], message: str
) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    refused(store, tmp_path / "adapter", message, base=classifier)


def test_an_adapter_of_another_base_is_refused(store: Store, tmp_path: Path, classifier: Path) -> None:
    write_adapter(tmp_path / "adapter", classifier)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    good = dict(tensors)
    tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = torch.zeros(4, 16)
    save_file(tensors, file)
    refused(store, tmp_path / "adapter", r"changes layers\.9\.mlp\.up_proj\.lora_A", base=classifier)
    good["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 15)
    save_file(good, file)
    refused(store, tmp_path / "adapter", "shape", base=classifier)
    refused(store, tmp_path / "adapter", "name the checkpoint it belongs to with --base")
    refused(store, classifier, "it is no adapter of", base=classifier)


# What is refused
def refused(store: Store, source: Path, message: str, base: Path | None = None, **wanted: Any) -> None:
    """In one sentence, and nothing is left behind."""
    with pytest.raises(CheckpointError, match=message) as error:
        add(store, source, base, **wanted)
    assert "\n" not in str(error.value)
    assert not store.root.exists() or list(store.root.iterdir()) == []


def drop(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def drop_tensor(path: Path) -> None:
    weights = weights_of(path)
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def break_head(path: Path) -> None:
    weights = weights_of(path)
    weights["score.weight"][0, 0] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def only_bin(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def lose_a_shard(path: Path) -> None:
    shard(path)
    (path / "model-00002-of-00003.safetensors").unlink()


def lose_the_index(path: Path) -> None:
    shard(path)
    (path / "model.safetensors.index.json").unlink()


def thinking(path: Path) -> None:
    """A template that shows thoughts in the last turn only."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last %}<think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("config.json"), r"config\.json cannot be read"),
        (drop("tokenizer.json"), r"no tokenizer\.json"),
        (drop("model.safetensors"), "no safetensors file"),
        (drop("tokenizer_config.json"), "chat template cannot be used"),
        (only_bin, r"as \.bin, a pickle.*convert"),
        (lose_a_shard, "lacks model-00002-of-00003"),
        (lose_the_index, "3 safetensors files and no"),
        (drop_tensor, "tensors are missing"),
        (break_head, "NaN or infinity"),
        (thinking, "renders a turn differently once others follow"),
        (lambda path: edit_config(path, quantization_config={}), "quantised"),
        (lambda path: edit_config(path, dtype="float8"), "dtype must be one of"),
        (lambda path: edit_config(path, max_position_embeddings=None), "context_length must be a whole number"),
        (lambda path: edit_config(path, architectures=["Qwen2ForCausalLM"]), "does not tell how it scores"),
        (lambda path: edit_config(path, architectures={}), "a model without architectures.*does not tell"),
        (lambda path: edit_config(path, model_type="unheard_of"), "cannot be loaded"),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_one_sentence_and_nothing_is_published(
    store: Store, classifier: Path, change: Callable[[Path], object], message: str
) -> None:
    change(classifier)
    refused(store, classifier, message)


def test_a_tokenizer_without_the_separator_is_another_family(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_language_model(source, LlamaConfig, sentence_piece(), bos="<s>")
    refused(store, source, r"no token for '\[PRM\]', which ends each step", preset="pqm")
    refused(store, source, r"no token .*, which the recipe reads", preset="er-prm")
    refused(store, source, "there is no preset 'nobodys'", preset="nobodys")


def test_a_recipe_that_is_wrong_names_the_field(store: Store, tmp_path: Path, classifier: Path) -> None:
    mine = tmp_path / "mine.json"
    refused(store, classifier, "cannot be read", recipe=mine)
    mine.write_text("[]")
    refused(store, classifier, "must be an object with score and template", recipe=mine)
    mine.write_text('{"score": 1, "template": {}}')
    refused(store, classifier, "score and template must be objects", recipe=mine)
    write_recipe(mine, {"head": "linear", "activation": "softmax"}, LINES)
    refused(store, classifier, "score: activation", recipe=mine)
    write_recipe(mine, {"head": "linear", "activation": "sigmoid"}, LINES | {"action": ["", ""]})
    refused(store, classifier, "template.action must end in a boundary", recipe=mine)
    write_recipe(mine, {"head": "mlp", "activation": "sigmoid", "layers": ["a", "b"]}, LINES)
    refused(store, classifier, r"no tensor a\.weight", recipe=mine)


# .bin files
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


# The hub
class Hub(BaseHTTPRequestHandler):
    """Answers everything with one status, as the hub does for what it does not show."""

    status: ClassVar[int] = 401
    reason: ClassVar[str] = ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], str]]:
    """Where it is, once it has been told what to answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answering(status: int, reason: str) -> str:
            monkeypatch.setattr(Hub, "status", status)
            monkeypatch.setattr(Hub, "reason", reason)
            return f"http://127.0.0.1:{server.server_port}"

        yield answering
        server.shutdown()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("status", "reason", "error", "message"),
    [
        (403, "GatedRepo", CheckpointError, "is gated: accept its terms"),
        (404, "RepoNotFound", CheckpointNotFound, "the hub has no someone/model@"),
        (404, "RevisionNotFound", CheckpointNotFound, "the hub has no someone/model@"),
        (400, "", CheckpointError, "cannot be downloaded"),
    ],
)
def test_what_the_hub_does_not_give_is_one_sentence(
    hub: Callable[[int, str], str], status: int, reason: str, error: type[CheckpointError], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        find_source(f"someone/model@{COMMIT}", endpoint=hub(status, reason))
    assert "\n" not in str(refused.value)


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        find_source(f"someone/model@{COMMIT}", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("someone/model", "needs @ and a commit of 40 hex digits"),
        ("someone/model@main", "needs @ and a commit of 40 hex digits"),
        (f"someone/model@{COMMIT[:12]}", "needs @ and a commit of 40 hex digits"),
        ("/nowhere/at/all", "neither a directory nor owner/name@commit"),
        ("../up", "neither a directory nor owner/name@commit"),
    ],
)
def test_a_source_must_be_a_directory_or_one_commit(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_source(source)
