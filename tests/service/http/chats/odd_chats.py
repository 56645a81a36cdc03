"""Chats as real clients and servers write them, and what must happen to each. ``docs/chats.md`` shows the table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentprm.chats import from_anthropic, from_langchain, from_responses

Turn = dict[str, Any]
SAME: Final = "the score of the plain chat"
OTHER: Final = "another score"

USER: Final = {"role": "user", "content": "Find the kettle."}
FUNCTION: Final = {"name": "look", "arguments": '{"where": "shelf"}'}
CALL: Final = {"id": "c1", "type": "function", "function": FUNCTION}
CALLS: Final = {"role": "assistant", "content": None, "tool_calls": [CALL]}
FOUND: Final = {"role": "tool", "tool_call_id": "c1", "content": "A blue kettle."}
SAYS: Final = {"role": "assistant", "content": "It is there."}
PLAIN: Final = [USER, CALLS, FOUND, SAYS]
THOUGHT: Final = "The shelf first."
THINKS: Final = [USER, {**CALLS, "reasoning_content": THOUGHT}, FOUND, SAYS]


@dataclass(frozen=True)
class OddChat:
    """A chat, where it comes from, what is odd about it, and the answer: SAME, OTHER or the sentence of a 422."""

    source: str
    oddity: str
    messages: Sequence[Any]
    answer: str = SAME
    plain: Sequence[Any] = tuple(PLAIN)
    tools: Sequence[Any] = ()

    def __str__(self) -> str:
        return f"{self.source}: {self.oddity}"


def with_message(**fields: Any) -> list[Turn]:
    return [USER, {**CALLS, **fields}, FOUND, SAYS]


def with_call(**fields: Any) -> list[Turn]:
    return with_message(tool_calls=[{**CALL, **fields}])


def with_function(**fields: Any) -> list[Turn]:
    return with_call(function={**FUNCTION, **fields})


def with_user(content: Any) -> list[Turn]:
    return [{"role": "user", "content": content}, CALLS, FOUND, SAYS]


def with_result(**fields: Any) -> list[Turn]:
    return [USER, CALLS, {**FOUND, **fields}, SAYS]


def saying(**fields: Any) -> list[Turn]:
    return [USER, CALLS, FOUND, {**SAYS, **fields}]


def text(written: str, **fields: Any) -> Turn:
    return {"type": "text", "text": written, **fields}


def both(*results: tuple[str | None, str]) -> list[Turn]:
    """Two parallel calls, c1 and c2, and results as (id, content)."""
    other = {**CALL, "id": "c2", "function": {**FUNCTION, "arguments": '{"where": "table"}'}}
    turns = [
        {"role": "tool", "content": content} | ({"tool_call_id": call_id} if call_id else {})
        for call_id, content in results
    ]
    return [USER, {**CALLS, "tool_calls": [CALL, other]}, *turns, SAYS]


NULLS: Final = {"refusal": None, "annotations": [], "audio": None, "function_call": None}
SIGNED: Final = {"google": {"thought_signature": "CpAB"}}
BLOCKS: Final = [{"type": "thinking", "thinking": THOUGHT, "signature": "EqQB"}]
DETAILS: Final = [{"type": "reasoning.text", "text": THOUGHT, "signature": None, "format": "x", "index": 0}]
BOTH: Final = tuple(both(("c1", "A kettle."), ("c2", "Nothing.")))
NOT_ALONE: Final = "send their text as reasoning_content"
ROLES: Final = "Input should be 'system', 'developer', 'user', 'assistant' or 'tool'"
USE: Final = {"type": "tool_use", "id": "c1", "name": "look", "input": {"where": "shelf"}, "caller": None}
RESULT: Final = {"type": "tool_result", "tool_use_id": "c1", "content": [text("A blue kettle.")], "is_error": False}
ANTHROPIC: Final = [
    USER,
    {"role": "assistant", "content": [USE]},
    {"role": "user", "content": [RESULT]},
    {"role": "assistant", "content": [text("It is there.", citations=None)]},
]
ITEMS: Final = [
    USER,
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]},
    {"type": "function_call", "call_id": "c1", **FUNCTION, "status": "completed"},
    {"type": "function_call_output", "call_id": "c1", "output": "A blue kettle."},
    {"type": "message", **SAYS, "content": [{"type": "output_text", "text": "It is there.", "annotations": []}]},
]
LANGCHAIN: Final = [
    {"type": "human", "content": "Find the kettle.", "additional_kwargs": {}},
    {"type": "ai", "content": "", "tool_calls": [{"name": "look", "args": {"where": "shelf"}, "id": "c1"}]},
    {"type": "tool", "content": "A blue kettle.", "tool_call_id": "c1", "status": "success", "artifact": {"a": "b"}},
    {"type": "ai", "content": ["It is", text(" there.", index=0)], "tool_calls": [], "invalid_tool_calls": []},
]
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}

OPENAI: Final = [
    OddChat("OpenAI", "all fields of a dumped message, null or empty", with_message(**NULLS)),
    OddChat("OpenAI", "`parsed` null, `parsed_arguments` as `parse()` makes them", with_function(parsed_arguments={})),
    OddChat("OpenAI", "calls put together from a stream keep `index`", with_call(index=0)),
    OddChat("OpenAI", "`weight` of a fine-tuning file", with_message(weight=0)),
    OddChat("OpenAI", "`cache_control`, null and set", with_user([text(USER["content"], cache_control={"type": "x"})])),
    OddChat("OpenAI", "`content` in two parts", with_user([text("Find "), text("the kettle.")])),
    OddChat(
        "OpenAI",
        "a refusal",
        saying(refusal="No."),
        "messages.3: message fields that are not scored: refusal (send its text as content)",
    ),
    OddChat(
        "OpenAI",
        "`function_call` of 2023",
        with_message(tool_calls=None, content="", function_call=FUNCTION),
        "messages.1: message fields that are not scored: function_call (send it as tool_calls)",
    ),
    OddChat(
        "OpenAI",
        "a custom tool's call",
        with_message(tool_calls=[{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}]),
        "messages.1.tool_calls.0: only calls of type function are scored",
    ),
    OddChat(
        "OpenAI",
        "an image",
        with_user([text("What is this?"), {"type": "image_url", "image_url": {"url": "data:,"}}]),
        "messages.0.content.1: parts of type image_url are not scored",
    ),
    OddChat(
        "OpenAI",
        "a voice",
        with_user([{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]),
        "messages.0.content.0: parts of type input_audio are not scored",
    ),
    OddChat(
        "OpenAI",
        "tools for a checkpoint whose template has none",
        PLAIN,
        "tools: the template of this checkpoint has no place for them; leave them out",
        tools=[TOOL],
    ),
    OddChat(
        "OpenAI Responses",
        "message items with their parts, `id`, `status` and `phase`",
        saying(content=ITEMS[4]["content"], type="message", id="m", status="completed", phase="final_answer"),
    ),
    OddChat("OpenAI Responses", "items as they are", ITEMS, "messages.1: a message needs a role"),
    OddChat("OpenAI Responses", "items through `from_responses`", from_responses(ITEMS), plain=THINKS),
    OddChat(
        "OpenAI Responses",
        "a flat tool definition",
        PLAIN,
        "body.items.0.tools.0: tool definition fields that are not scored: name, parameters "
        "(send function with name, description and parameters)",
        tools=[{"type": "function", "name": "look", "parameters": {"type": "object"}}],
    ),
]
GATEWAYS: Final = [
    OddChat("LiteLLM", "`provider_specific_fields` that hold nothing", saying(provider_specific_fields=NULLS)),
    OddChat(
        "LiteLLM",
        "reasoning three times: `reasoning_content`, `thinking_blocks`, `provider_specific_fields`",
        with_message(
            reasoning_content=THOUGHT,
            thinking_blocks=BLOCKS,
            provider_specific_fields={"reasoning_content": THOUGHT, "thinking_blocks": BLOCKS, "citations": None},
        ),
        plain=THINKS,
    ),
    OddChat(
        "LiteLLM",
        "`thinking_blocks` alone",
        with_message(thinking_blocks=BLOCKS),
        f"messages.1: message fields that are not scored: thinking_blocks ({NOT_ALONE})",
    ),
    OddChat(
        "LiteLLM",
        "`provider_specific_fields` with search results",
        saying(provider_specific_fields={"search_results": [{"title": "Kettles"}]}),
        "messages.3: message fields that are not scored: provider_specific_fields.search_results",
    ),
    OddChat(
        "OpenRouter",
        "`reasoning` and the same in `reasoning_details`",
        with_message(reasoning=THOUGHT, reasoning_details=DETAILS),
        plain=THINKS,
    ),
    OddChat(
        "OpenRouter",
        "encrypted `reasoning_details` alone",
        with_message(reasoning_details=[{"type": "reasoning.encrypted", "data": "gAAA"}]),
        f"messages.1: message fields that are not scored: reasoning_details ({NOT_ALONE})",
    ),
    OddChat("vLLM", "`reasoning`", with_message(reasoning=THOUGHT), plain=THINKS),
    OddChat(
        "vLLM",
        "`reasoning` and `reasoning_content` with one text",
        with_message(reasoning=THOUGHT, reasoning_content=THOUGHT),
        plain=THINKS,
    ),
    OddChat(
        "vLLM",
        "`reasoning` and `reasoning_content` with two texts",
        with_message(reasoning=THOUGHT, reasoning_content="The table first."),
        "messages.1: reasoning stands in two fields with different texts",
    ),
    OddChat("vLLM", "`tool_calls` empty, `reasoning` null", saying(tool_calls=[], reasoning=None)),
    OddChat("DeepSeek", "`prefix` false", saying(prefix=False)),
    OddChat("DeepSeek", "`prefix` true", saying(prefix=True), "messages.3: message fields that are not scored: prefix"),
    OddChat(
        "Mistral",
        "thinking that is a list of parts",
        saying(content=[{"type": "thinking", "thinking": [text(THOUGHT)]}, text("It is there.")]),
        "body.items.0.messages.3.content.0.thinking: Input should be a valid string",
    ),
    OddChat(
        "Ollama",
        "arguments as an object, no ids, `tool_name`",
        [
            USER,
            {**CALLS, "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"where": "shelf"}}}]},
            {"role": "tool", "tool_name": "look", "content": "A blue kettle."},
            SAYS,
        ],
    ),
    OddChat("Ollama", "`thinking`", with_message(thinking=THOUGHT), plain=THINKS),
    OddChat(
        "Ollama",
        "`images` of a user",
        [{**USER, "images": ["iVBO"]}, CALLS, FOUND, SAYS],
        "messages.0: message fields that are not scored: images (only text is scored)",
    ),
]
OTHER_APIS: Final = [
    OddChat("LangChain", "messages through `from_langchain`", from_langchain(LANGCHAIN)),
    OddChat(
        "LangChain",
        "a message as `model_dump` writes it",
        [LANGCHAIN[0], CALLS, FOUND, SAYS],
        "messages.0: a message needs a role",
    ),
    OddChat(
        "LangChain",
        "an OpenAI message with `additional_kwargs` and `response_metadata`",
        saying(additional_kwargs={"refusal": None}, response_metadata={"model_name": "m"}, example=False),
    ),
    OddChat("Anthropic", "messages through `from_anthropic`", from_anthropic(ANTHROPIC)),
    OddChat(
        "Anthropic",
        "a `tool_use` block as it is",
        ANTHROPIC,
        "messages.1.content.0: parts of type tool_use are not scored",
    ),
    OddChat(
        "Anthropic",
        "a `tool_result` block as it is",
        [USER, CALLS, *ANTHROPIC[2:]],
        "messages.2.content.0: parts of type tool_result are not scored",
    ),
    OddChat("Anthropic", "a thinking block with its signature", with_message(content=BLOCKS), plain=THINKS),
    OddChat(
        "Anthropic",
        "redacted thinking",
        saying(content=[{"type": "redacted_thinking", "data": "EmwK"}, text("It is there.")]),
        "messages.3.content.0: parts of type redacted_thinking are not scored",
    ),
    OddChat("Gemini", "a thought signature in `extra_content` of a call", with_call(extra_content=SIGNED)),
    OddChat("Gemini", "role `model`", saying(role="model"), f"body.items.0.messages.3.role: {ROLES}"),
    OddChat(
        "Gemini",
        "`parts` for `content`",
        [{"role": "user", "parts": [{"text": "Find the kettle."}]}, CALLS, FOUND, SAYS],
        "messages.0: message fields that are not scored: parts",
    ),
    OddChat("Bedrock", "text parts without a type", with_user([{"text": "Find the kettle."}])),
    OddChat(
        "Bedrock",
        "a `toolUse` part",
        with_message(content=[{"toolUse": {"toolUseId": "c1", "name": "look", "input": {}}}], tool_calls=None),
        "messages.1.content.0: parts without a type are not scored",
    ),
    OddChat(
        "MCP",
        "a result of parts with `annotations` and `_meta`",
        with_result(content=[text("A blue kettle.", annotations={"audience": ["user"]}, _meta={"a": "b"})]),
    ),
    OddChat(
        "MCP",
        "a resource in a result",
        with_result(content=[{"type": "resource", "resource": {"uri": "file:///a", "text": "A blue kettle."}}]),
        "messages.2.content.0: parts of type resource are not scored",
    ),
    OddChat(
        "MCP",
        "a structured result beside its text",
        with_result(structuredContent={"found": "kettle"}),
        "messages.2: message fields that are not scored: structuredContent",
    ),
    OddChat("TRL", "arguments as an object", with_function(arguments={"where": "shelf"})),
    OddChat("TRL", "`train` and `loss` marks", with_message(train=True, loss=True)),
    OddChat(
        "smolagents", "contents of one part, raw reply kept", saying(content=[text("It is there.")], raw={"a": "b"})
    ),
    OddChat(
        "smolagents",
        "role `tool-response`",
        with_result(role="tool-response"),
        f"body.items.0.messages.2.role: {ROLES}",
    ),
    OddChat(
        "Hugging Face",
        "a call without `function` around it",
        with_message(tool_calls=[FUNCTION]),
        "messages.1.tool_calls.0: tool call fields that are not scored: arguments, name "
        "(send function with name and arguments)",
    ),
]
CALLS_AND_RESULTS: Final = [
    OddChat("any", "parallel results in another order", both(("c2", "Nothing."), ("c1", "A kettle.")), plain=BOTH),
    OddChat("any", "parallel results under swapped ids", both(("c2", "A kettle."), ("c1", "Nothing.")), OTHER, BOTH),
    OddChat(
        "any",
        "a result of an unknown call",
        both(("c1", "A kettle."), ("c3", "Nothing.")),
        "messages.3: tool_call_id is the id of no call before it",
    ),
    OddChat(
        "any",
        "two results of one call",
        both(("c1", "A kettle."), ("c1", "Nothing.")),
        "messages.3: the call with this tool_call_id has a result already",
    ),
    OddChat(
        "any",
        "parallel results without ids",
        both((None, "A kettle."), (None, "Nothing.")),
        "messages.2: a tool message needs tool_call_id where several calls were made before it",
    ),
    OddChat("any", "the only result without its id", with_result(tool_call_id=None)),
    OddChat(
        "any",
        "other ids",
        [USER, with_call(id="functions.look:0")[1], with_result(tool_call_id="functions.look:0")[2], SAYS],
    ),
    OddChat("any", "white space and order within arguments", with_function(arguments='{ "where" : "shelf" }')),
    OddChat(
        "any",
        "a key twice in arguments",
        with_function(arguments='{"where": "table", "where": "shelf"}'),
        OTHER,
    ),
    OddChat(
        "any",
        "numbers that no float holds",
        with_function(arguments='{"where": 1e400}'),
        OTHER,
        with_function(arguments='{"where": 1e401}'),
    ),
    OddChat(
        "any",
        "an empty turn",
        [USER, CALLS, FOUND, {**SAYS, "content": ""}, USER, SAYS],
        "messages.3: an assistant message needs content or tool_calls",
    ),
    OddChat(
        "any",
        "reasoning in a user's turn",
        [{**USER, "reasoning": THOUGHT}, CALLS, FOUND, SAYS],
        "messages.0: only an assistant message may hold reasoning",
    ),
]
ODD_CHATS: Final = [*OPENAI, *GATEWAYS, *OTHER_APIS, *CALLS_AND_RESULTS]


def item_of(messages: Sequence[Any], tools: Sequence[Any] = ()) -> bytes:
    return json.dumps({"items": [{"messages": list(messages), **({"tools": list(tools)} if tools else {})}]}).encode()
