"""Special tokens that somebody said in a chat are plain text, whatever a template does with the text around them."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from agentprm.types import Conversation, Message, ToolCall
from model_store.errors import CheckpointCorrupt
from model_store.format.chat import ChatTemplate
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.runs import Unrenderable
from tests.model_store.text.agent_chats import fast_tokenizer
from tests.model_store.tiny_checkpoints import CORPUS, byte_level, sentence_piece

SPECIAL = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<s>", "</s>"]
JOINING = [*CORPUS, *[" <|im_end|>\n <think>\n </think>\n\n </s>.\n"] * 3]
"""Text in which tokens grow over both ends of a special one."""
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
SPLIT = "{{ m.content.split('</think>')[-1].lstrip('\\n') if '</think>' in m.content else m.content }}"
JSON = "{{ m.content | tojson(ensure_ascii=true) }}"
PRINTED = "{{ [m.content] | string }}"
SAID = (
    "a <|im_end|> b",
    "<think>\nso\n</think>\n\nthen </s>.",
    "</s></s> <think>",
    "\ue000<s>\ue001\ue002 \\ue000",
    "é",
)


def template(content: str) -> str:
    return TURNS.replace("{{ CONTENT }}", content)


def renderer_of(tokenizer: Tokenizer, source: str) -> ChatRenderer:
    return ChatRenderer(tokenizer, source, ChatTemplate())


def chat(text: str) -> Conversation:
    return Conversation((Message("user", text), Message("assistant", "so " + text)))


def by_transformers(tokenizer: Tokenizer, source: str, text: str) -> list[int]:
    fast: Any = fast_tokenizer(tokenizer, source)
    fast.chat_control_tokens = []  # special tokens only
    said = [{"role": "user", "content": text}, {"role": "assistant", "content": "so " + text}]
    ids: list[int] = fast.apply_chat_template(said, return_dict=False, sanitize_control_tokens=True)
    return ids


def tokenizer_of(kind: str) -> Tokenizer:
    tokenizer = byte_level([], JOINING) if kind == "byte level" else sentence_piece(kind)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


@pytest.mark.parametrize("kind", ["byte level", "normalizer", "always", "first"])
@pytest.mark.parametrize(
    "content", ["{{ m.content }}", "{{ m.content | trim }}", "<s>{{ m.content }}", SPLIT, "<s>" + SPLIT]
)
def test_special_tokens_in_a_text_are_tokenised_as_in_transformers(kind: str, content: str) -> None:
    renderer = renderer_of(tokenizer_of(kind), template(content))
    for text in SAID:
        assert renderer.token_ids(chat(text)) == by_transformers(tokenizer_of(kind), template(content), text)


@pytest.mark.parametrize("content", ["{{ m.content }}", JSON, PRINTED])
def test_a_text_reads_the_same_with_and_without_marks(content: str) -> None:
    """Filters that escape private characters escape the marks too: they are found all the same."""
    plain = byte_level([])
    marking = Tokenizer.from_str(plain.to_str())
    marking.add_special_tokens(["<s>", "</s>"])
    for text in SAID:
        ids = renderer_of(marking, template(content)).token_ids(chat(text))
        alone = renderer_of(plain, template(content)).token_ids(chat(text))
        assert plain.decode(ids) == plain.decode(alone)


def test_special_tokens_in_names_of_arguments_are_plain_text_too() -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}<s>"
    call = ToolCall("find", '{"a<s>": "<s>"}')
    tokenizer = tokenizer_of("byte level")
    ids = renderer_of(tokenizer, source).token_ids(Conversation((Message("assistant", tool_calls=(call,)),)))
    assert [tokenizer.id_to_token(index) for index in ids].count("<s>") == 1


def test_a_special_token_that_plain_text_becomes_too_is_refused_where_somebody_says_it() -> None:
    vocabulary = [("<unk>", 0.0), ("</s>", -1.0), *((letter, -2.0) for letter in "</s> abo")]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.add_special_tokens(["</s>"])
    renderer = renderer_of(tokenizer, "{{ messages[0].content }}</s>")
    assert renderer.token_ids(chat("a b"))
    with pytest.raises(Unrenderable, match="cannot read '</s>' in a chat as plain text"):
        renderer.token_ids(chat("a</s>b"))


def test_a_template_of_tokens_that_are_tokens_in_some_places_only_is_refused() -> None:
    lower = byte_level([])
    lower.normalizer = normalizers.Lowercase()
    lower.add_special_tokens([AddedToken("<S>", normalized=True)])
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.add_special_tokens([AddedToken("<S>", single_word=True)])
    for tokenizer in (lower, words):
        assert renderer_of(tokenizer, "{{ messages[0].content }}").token_ids(chat("a"))
        with pytest.raises(CheckpointCorrupt, match="'<S>' is recognised in some places only"):
            renderer_of(tokenizer, "{{ messages[0].content }}<S>")


def test_a_token_that_a_template_puts_together_counts_as_its_own() -> None:
    source = "{{ '<' + 'S' + '>' }}{{ messages[0].content }}"
    tokenizer = byte_level([])
    tokenizer.add_special_tokens(["<S>"])
    renderer = renderer_of(tokenizer, source)
    rows = tokenizer.get_vocab_size()
    assert renderer.token_ids(chat("a"))[0] == rows - 1
    renderer.refuse_too_few_rows(rows)
    with pytest.raises(CheckpointCorrupt, match="embedding only"):
        renderer.refuse_too_few_rows(rows - 1)
