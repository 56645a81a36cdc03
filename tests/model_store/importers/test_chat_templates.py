"""What an import finds out about a chat template, by trying it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, LlamaConfig

from model_store.__main__ import main
from model_store.errors import CheckpointError, ManifestInvalid
from model_store.format.chat import ChatTemplate, check_chat
from model_store.format.store import Store
from model_store.importers.chat_template import chat_source, chat_texts
from model_store.importers.padding import pad_token
from model_store.importers.sample import left_out
from model_store.text.chat_renderer import load_chat_renderer
from model_store.text.jinja import JinjaTemplate
from tests.model_store.importers.importing import add
from tests.model_store.text.agent_chats import CHATS, TEMPLATES, as_conversation, fast_tokenizer, tokenizer_for
from tests.model_store.tiny_checkpoints import config_of, save

FOUND: dict[str, dict[str, Any]] = {
    "gemma3": {"content": "both", "empty_content": False, "arguments": "object"},
    "gptoss": {"content": "text", "empty_content": False, "arguments": "object"},
    "llama3_1": {"content": "text", "empty_content": False, "arguments": "object"},
    "llama3_2": {"content": "text", "empty_content": False, "arguments": "object"},
    "mistral_like": {"content": "text", "empty_content": False, "arguments": "object"},
    "qwen2_5": {"content": "text", "empty_content": False, "arguments": "object"},
    "qwen3": {"content": "text", "empty_content": False, "arguments": "object"},
    "smollm2": {"content": "text", "empty_content": True, "arguments": "object"},
}
JSON_TEXT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}: {{ c.function.arguments }}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}<|im_end|>{% endfor %}{% endfor %}"


def files(path: Path, template: Any) -> Path:
    """The tokenizer's files of a checkpoint with this chat template."""
    fast_tokenizer(tokenizer_for(str(template)), template).save_pretrained(path)
    return path


def classifier(path: Path, template: Any) -> Path:
    tokenizer = tokenizer_for(str(template))
    model: Any = AutoModelForSequenceClassification.from_config(config_of(LlamaConfig, tokenizer, num_labels=1))
    save(path, model, tokenizer)
    fast_tokenizer(tokenizer, template).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", TEMPLATES)
def test_how_a_template_reads_chats_is_found_by_trying(tmp_path: Path, name: str) -> None:
    source = chat_source(files(tmp_path, TEMPLATES[name]))
    assert source.text == TEMPLATES[name]
    fields = dict(source.fields)
    date, variables = fields.pop("date", None), fields.pop("variables")
    assert fields == FOUND[name]
    assert (date is not None) == ("strftime_now" in source.text)
    assert set(variables) == {token for token in ("bos_token", "eos_token", "pad_token") if token in source.text}


def test_a_template_that_prints_arguments_gets_json_text_and_one_of_parts_gets_parts(tmp_path: Path) -> None:
    assert chat_source(files(tmp_path / "text", JSON_TEXT)).fields["arguments"] == "text"
    assert chat_source(files(tmp_path / "parts", PARTS)).fields["content"] == "parts"


def test_of_several_templates_the_one_for_tools_is_used_with_tools(tmp_path: Path) -> None:
    templates = {"default": TEMPLATES["smollm2"], "tool_use": TEMPLATES["qwen2_5"]}
    path = files(tmp_path, templates)
    source = chat_source(path)
    fast = fast_tokenizer(tokenizer_for(str(templates)), templates)
    for chat in (CHATS["system, one call"], CHATS["system, tools, one call"]):
        said = [turn for turn in chat["messages"] if "content" in turn]
        ours = JinjaTemplate(source.text, None).render(said, chat.get("tools"), {}, 10**6)
        assert ours == fast.apply_chat_template(said, tools=chat.get("tools"), tokenize=False)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 'a' * 10000000000 }}", "MemoryError"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 1000000 characters"),
        ("{% for %}", "no Jinja template"),
        ("nothing", "leaves out what the user says"),
        ("{{ raise_exception('Not today') }}", "Not today"),
    ],
)
def test_a_template_that_renders_no_chat_is_refused_in_one_sentence(tmp_path: Path, template: str, why: str) -> None:
    path = files(tmp_path, template)
    for read in (chat_source, chat_texts):
        with pytest.raises(CheckpointError, match="chat template cannot be used") as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=why):
        chat_source(path)


@pytest.mark.slow  # it computes for as long as its process may
def test_a_template_that_never_ends_is_stopped(tmp_path: Path) -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(CheckpointError, match="chat template cannot be used: its process ended"):
        chat_source(files(tmp_path, endless))


def test_a_recipe_says_whose_turns_observations_are_and_the_date(store: Store, tmp_path: Path) -> None:
    source = classifier(tmp_path / "source", TEMPLATES["llama3_2"])
    recipe = tmp_path / "mine.json"
    chat = {"observation": "tool", "date": "2024-07-26"}
    recipe.write_text(json.dumps({"score": {"head": "linear", "activation": "sigmoid"}, "chat": chat}))
    checkpoint = add(store, source, recipe=recipe).checkpoint
    assert checkpoint.manifest.chat is not None
    assert (checkpoint.manifest.chat.observation, checkpoint.manifest.chat.date) == ("tool", "2024-07-26")
    text = load_chat_renderer(checkpoint).text(as_conversation(CHATS["system, nothing"]))
    assert "Today Date: 26 Jul 2024" in text
    recipe.write_text(json.dumps({"score": {"head": "linear", "activation": "sigmoid"}, "chat": {"date": "today"}}))
    with pytest.raises(CheckpointError, match="chat: date must be like 2026-01-31"):
        add(Store(tmp_path / "other"), source, recipe=recipe)


def test_what_a_template_leaves_out_of_a_chat_is_told(store: Store, tmp_path: Path) -> None:
    missing = {}
    for name in ("smollm2", "llama3_2", "qwen3"):
        checkpoint = add(Store(tmp_path / f"store-{name}"), classifier(tmp_path / name, TEMPLATES[name])).checkpoint
        missing[name] = left_out(load_chat_renderer(checkpoint))
    assert missing == {"smollm2": ["tools", "tool calls", "reasoning"], "llama3_2": ["reasoning"], "qwen3": []}


def test_inspect_shows_a_chat_with_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in ("qwen3", "gemma3"):
        source = classifier(tmp_path / name, TEMPLATES[name])
        assert main(["inspect", str(source)]) == 0
        shown[name] = capsys.readouterr().out
    assert '<tool_call>\n{"name": "count", "arguments": {"place": "table", "what": "apples"}}' in shown["qwen3"]
    assert "tokens as from the whole text at once: the same" in shown["qwen3"]
    assert "a sample chat with tools: the checkpoint's chat template refuses this chat" in shown["gemma3"]


def test_a_manifest_with_a_chat_that_cannot_be_is_refused_by_name() -> None:
    for chat in (ChatTemplate(date="31.1.2026"), ChatTemplate(variables={"bos token": "<s>"})):
        with pytest.raises(ManifestInvalid, match=r"prm\.json: chat: (date|variables) must"):
            check_chat(chat)


def in_turns(content: str) -> str:
    return "{% for m in messages %}<|im_start|>{{ m.role }}\n" + content + "<|im_end|>\n{% endfor %}"


PARTS_TOO = "{% for part in m.content %}{{ part.text }}{% endfor %}"
EITHER = "{% if m.content is string %}{{ m.content }}{% else %}" + PARTS_TOO + "{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (in_turns(EITHER), {"content": "both"}),
        (
            in_turns("{% if m.role == 'system' %}{{ m.content }}{% else %}" + EITHER + "{% endif %}"),
            {"content": "text"},
        ),
        (
            in_turns("{% if m.role == 'tool' %}{{ m.content + '' }}{% else %}" + EITHER + "{% endif %}"),
            {"content": "text"},
        ),
        (
            in_turns("{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}" + CALLS),
            {"arguments": "text"},
        ),
        (
            in_turns(
                "{{ m.content }}" + CALLS.replace("arguments }}", "arguments if c.function.arguments is string }}")
            ),
            {"arguments": "text"},
        ),
    ],
)
def test_a_template_is_tried_in_every_role_and_without_a_tools_turn(
    tmp_path: Path, template: str, found: dict[str, str]
) -> None:
    fields = chat_source(files(tmp_path, template)).fields
    assert found.items() <= fields.items()


def test_of_two_templates_each_keeps_the_white_space_at_its_ends(tmp_path: Path) -> None:
    with_tools, default = (
        "\n\ntools{{ messages[0].content }}\n   ",
        "  {% if true %}a{% endif %}{{ messages[0].content }}\n\n",
    )
    source = chat_source(files(tmp_path, {"default": default, "tool_use": with_tools}))
    said = [{"role": "user", "content": "asked"}]
    for tools, own in ((None, default), ([{}], with_tools)):
        expected = JinjaTemplate(own, None).render(said, tools, {}, 100)
        assert JinjaTemplate(source.text, None).render(said, tools, {}, 100) == expected


@pytest.mark.parametrize("end", ["<|im_end|>", "{{ '<|' + 'im_end' + '|>' }}"])
def test_padding_that_a_template_writes_in_one_piece_or_in_several_is_kept(tmp_path: Path, end: str) -> None:
    tokenizer = tokenizer_for("")
    pad = tokenizer.token_to_id("<|im_end|>")
    config = {"architectures": ["LlamaForSequenceClassification"], "pad_token_id": pad}
    source = "{% for m in messages %}<|im_start|>{{ m.content }}" + end + "{% endfor %}"
    assert pad_token(config, {"head": "linear"}, None, [source], tokenizer) == {"pad_token_id": pad}
    assert pad_token(config, {"head": "linear"}, None, [source.replace(end, "")], tokenizer) == {}
