"""Chats of an agent that refunds orders, and a tiny language model for them."""

import json
from pathlib import Path
from typing import Any, Final

from transformers import LlamaConfig, LlamaForCausalLM

from tests.model_store.tiny_checkpoints import CHATML_TOKENS, byte_level, config_of, save

TOOLS: Final = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("look_up", "refund")
]
CHAT: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
)


def calling(name: str, order: int) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps({"order": order})}
    return {"role": "assistant", "tool_calls": [{"id": f"call-{name}", "type": "function", "function": function}]}


def told(name: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call-{name}", "content": text}


def attempt(order: int, *, careful: bool) -> dict[str, Any]:
    """An agent that looks an order up before it refunds it succeeds; one that does not fails."""
    looked = [calling("look_up", order), told("look_up", "paid by card")] if careful else []
    return {
        "query": f"order {order}",
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": f"Refund order {order}."},
            *looked,
            calling("refund", order),
            told("refund", "ok" if careful else "not allowed"),
            {"role": "assistant", "content": "It is done."},
        ],
        "outcome": float(careful),
    }


def write_chats(path: Path) -> None:
    attempts = [attempt(order, careful=careful) for order in range(10, 20) for careful in (True, False)]
    path.write_text("".join(json.dumps(one) + "\n" for one in attempts))


def make_base(path: Path, corpus: str) -> None:
    path.mkdir()
    tokenizer = byte_level(CHATML_TOKENS, corpus.splitlines())
    config: Any = config_of(LlamaConfig, tokenizer)
    save(path, LlamaForCausalLM(config), tokenizer, chat=CHAT)
