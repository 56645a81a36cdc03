"""What is trained is what is served, and a checkpoint appears whole or not at all."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from agentprm import messages, wire
from agentprm.errors import AgentPRMError
from model_store.__main__ import main
from model_store.errors import CheckpointCorrupt, CheckpointNotFound
from model_store.format.store import Store
from model_store.network.model import RewardModel, load_model, save_model, score_rows
from model_store.text.loading import render
from tests.end_to_end.conftest import serving
from tests.model_store.tiny_checkpoints import CHATML_TOKENS, byte_level, config_of, save
from training.base_model import Base, load_base
from training.publishing import TOLERANCE, Release, publish
from training.trainers.adapter import add_adapter

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 17}'}}
CHATS: list[list[dict[str, Any]]] = [
    [
        {"role": "user", "content": "Refund order 17."},
        {"role": "assistant", "content": "I look it up.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "paid by card"},
        {"role": "assistant", "content": "It is refunded."},
    ],
    [{"role": "user", "content": "How many eggs?"}, {"role": "assistant", "content": "13"}],
]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tokenizer = byte_level(CHATML_TOKENS)
    config: Any = config_of(LlamaConfig, tokenizer)
    save(path, LlamaForCausalLM(config), tokenizer, chat=CHAT)
    return path


def trained(source: Path, into: Path, dtype: str, *, rank: int = 0) -> Base:
    """A base whose weights, or those of adapters of a ``rank``, have moved, as after training."""
    base = load_base(str(source), into, dtype=dtype)
    if rank:
        add_adapter(base.model, rank, seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in filter(lambda weight: weight.requires_grad, base.model.parameters()):
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator).to(weight.dtype))
    return base


def rows(base: Base) -> list[Any]:
    histories = (messages.to_history(wire.History.model_validate({"messages": chat})) for chat in CHATS)
    return [row for history in histories for row in render(base.text.renderer, history)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("dtype", "rank", "as_adapter"),
    [
        ("float32", 0, False),
        ("bfloat16", 4, True),
        pytest.param("float32", 4, True, marks=pytest.mark.slow),
        pytest.param("bfloat16", 0, False, marks=pytest.mark.slow),
        pytest.param("bfloat16", 4, False, marks=pytest.mark.slow),
    ],
)
def test_what_is_trained_is_what_is_served(
    language_model: Path, tmp_path: Path, dtype: str, rank: int, as_adapter: bool
) -> None:
    base = trained(language_model, tmp_path / "base", dtype, rank=rank)
    samples = rows(base)
    store = Store(tmp_path / "store")
    raw = score_rows(base.model.eval(), [row.token_ids for row in samples], [row.reads for row in samples])
    release = Release("mine", "1", {"method": "td-gae"}, {"auc": 0.9}, {"report.html": "<p>good</p>"})
    publish(base.model, base.text, store, release, samples, as_adapter=as_adapter)
    score = store.resolve("mine").manifest.score
    expected = [score.promise(value) for values in raw for value in values]
    with serving(tmp_path, model_store=str(store.root), models="mine") as url:
        reply = httpx.post(f"{url}/score_trajectory", json={"items": [{"messages": chat} for chat in CHATS]}).json()
        shown = httpx.get(f"{url}/models").json()["models"][0]
    served = [step["promise"] for result in reply["results"] for step in result["steps"]]
    assert served == pytest.approx(expected, abs=TOLERANCE[dtype])
    assert max(expected) - min(expected) > 2 * TOLERANCE[dtype], "scores that differ little would prove little"
    assert (shown["training"], shown["evaluation"]) == ({"method": "td-gae"}, {"auc": 0.9})


def publish_mine(base: Base, store: Store, version: str = "1", *, as_adapter: bool = False) -> None:
    publish(base.model, base.text, store, Release("mine", version, {}, {}), rows(base), as_adapter=as_adapter)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks transformers by an old name
def test_an_adapter_merges_as_peft_merges_it(language_model: Path, tmp_path: Path) -> None:
    base = trained(language_model, tmp_path / "base", "float32", rank=4)
    store = Store(tmp_path / "store")
    publish_mine(base, store, as_adapter=True)
    model: Any = LlamaForCausalLM.from_pretrained(language_model)
    theirs: Any = PeftModel.from_pretrained(model, str(store.root / "mine/1/adapter"))
    ours = load_model(store.resolve("mine"), "cpu", "auto").backbone.state_dict()
    for name, weight in theirs.merge_and_unload().model.state_dict().items():
        torch.testing.assert_close(ours[name], weight)


def test_an_adapter_without_its_base_or_with_another_is_refused(language_model: Path, tmp_path: Path) -> None:
    base = trained(language_model, tmp_path / "base", "float32", rank=2)
    store = Store(tmp_path / "store")
    publish_mine(base, store, as_adapter=True)
    (kept,) = (store.root / ".bases").iterdir()
    with (kept / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CheckpointCorrupt, match=r"the base of mine@1 has changed"):
        store.resolve("mine")
    shutil.rmtree(kept)
    with pytest.raises(CheckpointNotFound, match=r"python -m model_store add-base .* --store .* brings it"):
        store.resolve("mine")
    assert main(["add-base", str(language_model), "--store", str(store.root)]) == 0
    assert store.resolve("mine").base == kept


def test_a_checkpoint_that_would_score_otherwise_is_not_published(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = trained(language_model, tmp_path / "base", "float32")

    def wrong(model: RewardModel, path: Path) -> None:
        save_model(model, path)
        weights = load_file(path / "model.safetensors")
        save_file(weights | {"score.weight": weights["score.weight"] + 1}, path / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr("training.publishing.save_model", wrong)
    store = Store(tmp_path / "store")
    with pytest.raises(AgentPRMError, match=r"mine@1 is not published: .* differs by .* from the trainer's"):
        publish_mine(base, store)
    assert store.references() == []


def test_a_full_disk_leaves_the_store_as_it_was(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = trained(language_model, tmp_path / "base", "float32")
    store = Store(tmp_path / "store")
    publish_mine(base, store)
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}

    def full(model: RewardModel, path: Path) -> None:
        (path / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("training.publishing.save_model", full)
    with pytest.raises(OSError, match="No space left"):
        publish_mine(base, store, "2")
    assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == before
    assert json.loads((store.root / "mine" / "1" / "prm.json").read_text())["version"] == "1"
