"""Chats as other APIs and libraries write them, odd calls and results, and what must happen to each."""

from typing import Final

from agentprm.chats import from_anthropic, from_langchain
from tests.service.http.chats.shapes import (
    ANTHROPIC,
    BLOCKS,
    BOTH,
    CALLS,
    FOUND,
    FUNCTION,
    LANGCHAIN,
    OTHER,
    ROLES,
    SAYS,
    SIGNED,
    THINKS,
    THOUGHT,
    USER,
    OddChat,
    both,
    saying,
    text,
    with_call,
    with_function,
    with_message,
    with_result,
    with_user,
)

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
