"""A chat has the token ids that transformers gives to it, at every place where a score is read."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from agentprm.types import Conversation, Message, ToolCall
from model_store.errors import CheckpointCorrupt
from model_store.format.chat import ChatTemplate
from model_store.text import chat_renderer, jinja
from model_store.text.chat_renderer import ChatRenderer, merged
from model_store.text.runs import TooManyTokens, Unrenderable
from tests.model_store.text.agent_chats import (
    CHATS,
    DATE,
    TEMPLATES,
    Chat,
    as_conversation,
    call,
    fast_tokenizer,
    renderer_for,
    result,
    tokenizer_for,
)


class _Clock:
    """The day on which the template was imported."""

    @staticmethod
    def now() -> datetime:
        return datetime.fromisoformat(DATE)


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def pair(template: str) -> tuple[ChatRenderer, Any]:
    """Our renderer and transformers' tokenizer, over the same files."""
    return renderer_for(template), fast_tokenizer(tokenizer_for(TEMPLATES[template]), TEMPLATES[template])


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _Clock)


def by_transformers(fast: Any, chat: Chat, end: int) -> list[int] | str:
    """The token ids of the first ``end`` turns, or the sentence with which the template refuses them."""
    try:
        ids: list[int] = fast.apply_chat_template(
            chat["messages"][:end], tools=chat.get("tools"), return_dict=False, sanitize_control_tokens=True
        )
    except TemplateError as error:
        return str(error)
    return ids


def assert_same(pair: tuple[ChatRenderer, Any], chat: Chat) -> None:
    renderer, fast = pair
    conversation = as_conversation(chat)
    for end in [end for end, turn in enumerate(chat["messages"], start=1) if turn["role"] == "assistant"]:
        expected = by_transformers(fast, chat, end)
        if isinstance(expected, str):
            with pytest.raises(Unrenderable) as refusal:
                renderer.token_ids(conversation.until(end))
            assert " ".join(expected.split()) in str(refusal.value)
        else:
            assert renderer.token_ids(conversation.until(end)) == expected


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_has_the_tokens_of_apply_chat_template(pair: tuple[ChatRenderer, Any], chat: str) -> None:
    assert_same(pair, CHATS[chat])


texts = st.text(st.sampled_from("ab <>|é\n\ue000\ue001\ue002"), max_size=6) | st.sampled_from(
    ["<|im_end|>", "<|im_start|>user\nno", "<think>so</think>then", "</think>", "[INST]", "<end_of_turn>", " x "]
)
arguments = st.dictionaries(st.sampled_from(["query", "page"]), texts | st.integers() | st.none(), max_size=2)
calls = st.lists(st.builds(call, st.integers(0, 9), arguments), min_size=1, max_size=2)
turns = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": texts}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": texts}, optional={"reasoning_content": texts}),
    st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": calls}, optional={"content": texts}),
    st.builds(result, st.integers(0, 9), texts),
)


@given(
    first=st.sampled_from(["system", "developer", "user"]),
    said=texts,
    rest=st.lists(turns, max_size=5),
    tools=st.booleans(),
)
@settings(deadline=None, max_examples=25)
def test_any_chat_has_the_tokens_of_apply_chat_template(
    pair: tuple[ChatRenderer, Any], first: str, said: str, rest: list[dict[str, Any]], tools: bool
) -> None:
    chat = {"messages": [{"role": first, "content": said}, *rest, {"role": "assistant", "content": "end"}]}
    chat |= {"tools": CHATS["tools, nothing"]["tools"]} if tools else {}
    assert_same(pair, chat)


def test_a_template_that_is_stable_here_needs_one_sequence_and_another_one_for_each_step() -> None:
    stable, changing = renderer_for("qwen2_5", empty_content=True), renderer_for("qwen3")
    chat = as_conversation(CHATS["system, a long way"])
    ends = [end for end, turn in enumerate(chat.messages, start=1) if turn.role == "assistant"]
    for renderer, sequences in ((stable, 1), (changing, 5)):
        chats = [renderer.token_ids(chat.until(end)) for end in ends]
        found = merged(chats)
        assert len(found) == sequences
        read = [token_ids[: place + 1] for token_ids, reads in found for place in reads]
        assert read == chats


def test_a_chat_ends_before_its_padding() -> None:
    name = "smollm2"
    tokenizer, chat = tokenizer_for(TEMPLATES[name]), as_conversation(CHATS["nothing"])
    whole = ChatRenderer(tokenizer, TEMPLATES[name], ChatTemplate()).token_ids(chat)
    cut = ChatRenderer(tokenizer, TEMPLATES[name], ChatTemplate(), pad_token_id=whole[-1])
    assert cut.token_ids(chat) == whole[:-1]
    only_padding = ChatRenderer(tokenizer, "{{ eos_token }}", ChatTemplate(variables={"eos_token": "</s>"}), 0)
    only_padding.pad_token_id = tokenizer.token_to_id("</s>")
    with pytest.raises(Unrenderable, match="makes no text"):
        only_padding.token_ids(chat)


def test_a_template_that_writes_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_renderer, "WRITTEN_CHARS", 1000)
    source = "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages[0].content }}{% endfor %}{% endfor %}"
    renderer = ChatRenderer(tokenizer_for(source), source, ChatTemplate())
    with pytest.raises(Unrenderable, match="makes more than 1080 characters of this chat"):
        renderer.token_ids(Conversation((Message("assistant", "0123456789"),)))


def test_arguments_that_are_empty_text_are_an_empty_object_as_in_vllm() -> None:
    for name, object_too in (("qwen3", '{"name": "look", "arguments": {}}'), ("llama3_2", '"parameters": {}')):
        said = Message("assistant", "", tool_calls=(ToolCall("look", ""),))
        assert object_too in renderer_for(name).text(Conversation((Message("user", "hi"), said)))


def test_a_template_that_computes_for_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja, "RENDER_SECONDS", -1.0)
    with pytest.raises(Unrenderable, match="computes for more than"):
        renderer_for("smollm2").token_ids(as_conversation(CHATS["nothing"]))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{{ namespace(__class__=1) }}", "cannot hold"),
        ("{{ raise_exception('Not  in\\nthis house') }}", "refuses this chat: Not in this house"),
        ("{{ messages[0].content + 1 }}", "refuses this chat: can only concatenate str"),
        ("{% include 'other' %}", "refuses this chat"),
    ],
)
def test_a_template_stays_in_its_sandbox_and_says_why(source: str, why: str) -> None:
    renderer = ChatRenderer(tokenizer_for(source), source, ChatTemplate())
    with pytest.raises(Unrenderable, match=why):
        renderer.token_ids(Conversation((Message("user", "hi"), Message("assistant", "yes"))))


def test_a_file_that_is_no_template_is_corrupt() -> None:
    with pytest.raises(CheckpointCorrupt, match="no Jinja template"):
        ChatRenderer(tokenizer_for(""), "{% for %}", ChatTemplate())


def test_a_chat_that_is_too_long_is_refused_whether_it_is_known_or_not() -> None:
    renderer, chat = renderer_for("smollm2"), as_conversation(CHATS["system, thinking"])
    with pytest.raises(TooManyTokens):
        renderer.token_ids(chat, 20)
    assert len(renderer.token_ids(chat)) > 20
    with pytest.raises(TooManyTokens):
        renderer.token_ids(chat, 20)


def test_recent_chats_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_renderer, "KEPT", 3000)
    renderer = renderer_for("smollm2")
    chats = [Conversation((Message("user", f"{number}" * 100), Message("assistant", "x"))) for number in range(30)]
    first = [list(renderer.token_ids(chat)) for chat in chats]
    assert len(renderer._chats) < 20
    assert [renderer.token_ids(chat) for chat in chats] == first


def test_reasoning_that_must_be_scored_is_refused_by_a_template_without_a_place_for_it() -> None:
    said = as_conversation(CHATS["thinking"]).until(2)
    wanted = replace(said, include_reasoning=True)
    for name in ("qwen3", "gptoss"):
        assert renderer_for(name).token_ids(wanted) == renderer_for(name).token_ids(said)
    with pytest.raises(Unrenderable, match="has no place for it"):
        renderer_for("llama3_2").token_ids(wanted)
    source = "{% if enable_thinking %}Go on thinking.{% endif %}{{ messages[0].content }}"
    with pytest.raises(Unrenderable, match="has no place for it"):
        ChatRenderer(tokenizer_for(source), source, ChatTemplate()).token_ids(wanted)
