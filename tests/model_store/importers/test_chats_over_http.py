"""Agent chats behind the service's own routes score as the classifier's own class over its own chat template."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, Qwen3Config

from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from tests.model_store.importers.over_http import results, serving
from tests.model_store.text.agent_chats import (
    CHATS,
    EOS,
    TEMPLATES,
    Chat,
    fast_tokenizer,
    sent,
    tokenizer_for,
)
from tests.model_store.tiny_checkpoints import config_of, edit_config

ASKED = ("system, nothing", "tools, one call", "system, thinking", "a silent call")
KINDS: Mapping[str, tuple[Any, str | None]] = {
    "smollm2": (LlamaConfig, None),
    "qwen3": (Qwen3Config, "<|endoftext|>"),
    "llama3_1": (LlamaConfig, "<|eot_id|>"),
    "mistral_like": (LlamaConfig, EOS),
}
"""The configuration and the padding of a classifier for each template."""


class Expected(NamedTuple):
    chat: Chat
    raw: list[float]
    """The authors' score of each step."""


def make(path: Path, name: str) -> None:
    kind, padding = KINDS[name]
    tokenizer = tokenizer_for(TEMPLATES[name])
    pad = None if padding is None else tokenizer.token_to_id(padding)
    model: Any = AutoModelForSequenceClassification.from_config(config_of(kind, tokenizer, num_labels=1))
    torch.manual_seed(3)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    model.save_pretrained(path)
    edit_config(path, pad_token_id=pad)
    fast_tokenizer(tokenizer, TEMPLATES[name]).save_pretrained(path)


@torch.inference_mode()
def by_transformers(path: Path, name: str) -> list[Expected]:
    """Each step's score by a forward of its own, over the chat up to it."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(path).eval()
    fast = fast_tokenizer(tokenizer_for(TEMPLATES[name]), TEMPLATES[name])
    expected = []
    for asked in ASKED:
        chat, raw = with_contents(name, CHATS[asked]), []
        for end, turn in enumerate(chat["messages"], start=1):
            if turn["role"] == "assistant":
                ids = fast.apply_chat_template(chat["messages"][:end], tools=chat.get("tools"), return_dict=False)
                raw.append(model(torch.tensor([ids])).logits[0, 0].item())
        expected.append(Expected(chat, raw))
    return expected


def with_contents(name: str, chat: Chat) -> Chat:
    """A chat as a template that fails without a content is given it."""
    if name != "smollm2":
        return chat
    return chat | {"messages": [{"content": "", **turn} for turn in chat["messages"]]}


def test_agent_chats_score_over_http_as_their_own_template_has_them(tmp_path: Path) -> None:
    expected = {}
    for name in KINDS:
        make(tmp_path / name, name)
        add_checkpoint(Store(tmp_path / "store"), tmp_path / name, ImportOptions(name.replace("_", "-"), "1"))
        expected[name] = by_transformers(tmp_path / name, name)
    names = tuple(name.replace("_", "-") for name in KINDS)

    async def scenario() -> None:
        async with serving(tmp_path / "store", names) as client:
            for name, chats in [*expected.items()] * 2:  # cold, then warm
                await assert_scored(client, name.replace("_", "-"), chats)

    asyncio.run(scenario())


def test_the_templates_own_refusal_is_the_answer(tmp_path: Path) -> None:
    make(tmp_path / "llama", "llama3_1")
    add_checkpoint(Store(tmp_path / "store"), tmp_path / "llama", ImportOptions("llama", "1"))

    async def scenario() -> httpx.Response:
        items = [sent(CHATS["nothing"]), sent(CHATS["tools, parallel calls"])]
        async with serving(tmp_path / "store", ["llama"]) as client:
            return await client.post("/score_step", json={"items": items})

    reply = asyncio.run(scenario())
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert error["message"].endswith(
        "chat template refuses this chat: This model only supports single tool-calls at once!"
    )
    assert error["details"]["item"] == 1


async def assert_scored(client: httpx.AsyncClient, model: str, chats: list[Expected]) -> None:
    """Alone and in company, all steps and the last, and proposed."""
    items = [sent(expected.chat) for expected in chats]
    together = await results(client, "/score_trajectory", model, items)
    last = await results(client, "/score_step", model, items)
    proposed = [
        item | {"messages": item["messages"][:-1], "candidates": ["So", item["messages"][-1]]} for item in items
    ]
    ranked = await results(client, "/rank_actions", model, proposed)
    for index, (item, expected) in enumerate(zip(items, chats, strict=True)):
        raw = pytest.approx(expected.raw, abs=1e-5)
        assert [step["raw"] for step in together[index]["steps"]] == raw, (model, ASKED[index])
        (alone,) = await results(client, "/score_trajectory", model, [item])
        assert [step["raw"] for step in alone["steps"]] == raw
        assert last[index]["raw"] == pytest.approx(expected.raw[-1], abs=1e-5)
        found = {row["index"]: row["raw"] for row in ranked[index]["ranking"]}
        assert found[1] == pytest.approx(expected.raw[-1], abs=1e-5)
