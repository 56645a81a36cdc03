"""Chats as OpenAI, gateways and inference servers write them, and what must happen to each."""

from typing import Final

from agentprm.chats import from_responses
from tests.service.http.chats.shapes import (
    BLOCKS,
    CALLS,
    DETAILS,
    FOUND,
    FUNCTION,
    ITEMS,
    NOT_ALONE,
    NULLS,
    PLAIN,
    SAYS,
    THINKS,
    THOUGHT,
    TOOL,
    USER,
    OddChat,
    saying,
    text,
    with_call,
    with_function,
    with_message,
    with_user,
)

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
