"""Scores agent chats with the real SmolLM2-135M-Instruct, beside transformers over its own chat template.

    make smollm2-base
    python -m tests.end_to_end.smollm2_chats

The score head is random. It also measures what rendering a chat of 30 steps costs that grew by one, beside the same
turns as texts. docs/checkpoints.md has a result.
"""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import httpx
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from agentprm.types import Conversation, Message, ToolCall
from model_store.format.store import Checkpoint, Store
from model_store.format.template import Template
from model_store.importers.chat_template import chat_texts
from model_store.importers.importer import ImportOptions, add_checkpoint
from model_store.text.chat_renderer import load_chat_renderer
from model_store.text.conversations import as_trajectory
from model_store.text.renderer import Renderer
from model_store.text.tokenizer_file import load_tokenizer
from service.app import create_app
from service.models.load import load_models
from service.settings import Settings

CALL: Final = {"id": "1", "type": "function", "function": {"name": "search", "arguments": {"query": "laptop"}}}
USER: Final = {"role": "user", "content": "Find a laptop below $900."}
SAID: Final = {"role": "assistant", "content": "I take the first one."}
SYSTEM: Final = {"role": "system", "content": "You are a careful shopper."}
TOOL: Final = [
    {"role": "assistant", "content": "I search.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "12 results"},
]
CHATS: Final = {
    "user, assistant": [USER, SAID],
    "with a system turn": [SYSTEM, USER, SAID],
    "with a tool turn": [USER, *TOOL, SAID],
    "with both": [SYSTEM, USER, *TOOL, SAID],
}
ROUNDS: Final = 200
BASE: Final = Path("runs/bases/smollm2-135m-instruct")


def make_classifier(path: Path) -> None:
    """Writes the language model's weights under a random score head."""
    if not BASE.is_dir():
        raise SystemExit("run `make smollm2-base` first")
    torch.manual_seed(0)
    classifier: Any = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)
    classifier.config.pad_token_id = None
    torch.nn.init.normal_(classifier.score.weight, std=classifier.config.hidden_size**-0.5)
    classifier.save_pretrained(path)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(path)


@torch.inference_mode()
def by_transformers(path: Path) -> list[float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    ids = [tokenizer.apply_chat_template(chat, return_dict=False) for chat in CHATS.values()]
    return [model(torch.tensor([row])).logits[0, 0].item() for row in ids]


async def by_the_service(store: Path) -> list[float]:
    settings = Settings(model_store=store, models=("smollm2",), device="cpu")
    app = create_app(load_models(settings)[0], settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://smollm2", timeout=600) as client,
    ):
        reply = await client.post("/score_step", json={"items": [{"messages": chat} for chat in CHATS.values()]})
    return [result["raw"] for result in reply.raise_for_status().json()["results"]]


def growing_chat(steps: int) -> Conversation:
    messages = [Message("system", "You are a careful shopper. " * 20), Message("user", "Find a laptop below $900.")]
    for number in range(steps):
        call = ToolCall("search", json.dumps({"query": f"laptop {number}", "page": number}), str(number))
        messages.append(Message("assistant", f"I look at page {number} of the results.", tool_calls=(call,)))
        messages.append(
            Message("tool", f"{number}: " + "twelve results with price and rating " * 14, tool_call_id=call.id)
        )
    return Conversation(tuple(messages[:-1]))


def rendering_times(checkpoint: Checkpoint, source: Path) -> tuple[float, float]:
    """Medians in ms of rendering and tokenising 30 steps of which the last is new: by the chat template, as texts."""
    start, user_end, user, assistant, assistant_end, _ = chat_texts(source)
    texts = Template("", (start, user_end), (user, user_end), (assistant, assistant_end), tokenise="text")
    by_texts = Renderer(load_tokenizer(checkpoint.path), texts)
    by_chat, whole = load_chat_renderer(checkpoint), growing_chat(30)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        last = replace(whole.messages[-1], content=f"I choose number {number}.")
        chat, before = whole.until(len(whole.messages) - 1, last), whole.until(len(whole.messages) - 2)
        by_chat.token_ids(before)  # the step before was scored with the request before
        begin = perf_counter()
        by_chat.token_ids(chat), by_chat.token_ids(before)
        between = perf_counter()
        by_texts.trajectory(as_trajectory(chat))
        times[0].append(between - begin)
        times[1].append(perf_counter() - between)
    return 1000 * median(times[0]), 1000 * median(times[1])


def main() -> None:
    with TemporaryDirectory() as scratch:
        source, store = Path(scratch) / "source", Path(scratch) / "store"
        make_classifier(source)
        imported = add_checkpoint(Store(store), source, ImportOptions("smollm2", "1"))
        expected, found = by_transformers(source), asyncio.run(by_the_service(store))
        for name, ours, theirs in zip(CHATS, found, expected, strict=True):
            print(f"{name:20} apply_chat_template {theirs:8.5f}   service {ours:8.5f}")
        chat, texts = rendering_times(imported.checkpoint, source)
        print(f"30 steps, one of them new: {chat:.2f} ms by the chat template, {texts:.2f} ms as texts")
        if max(abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)) > 1e-4:
            raise SystemExit("the scores differ")


if __name__ == "__main__":
    main()
