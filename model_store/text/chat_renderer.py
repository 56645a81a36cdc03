"""Chat to token ids, by the checkpoint's own Jinja template.

The token ids are those of ``apply_chat_template(messages, tools=tools, sanitize_control_tokens=True)`` of
transformers. A template may render a turn differently once others follow, so each chat is rendered as a whole. Its
text is cut at special tokens, and the runs between them are tokenised once: a chat that grew has few new ones. Special
tokens that somebody said are runs of their own, as in transformers.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer

from agentprm.types import Conversation, Message
from model_store.errors import CheckpointCorrupt, ManifestInvalid, one_line
from model_store.format.chat import CHAT_TEMPLATE, ChatTemplate
from model_store.format.store import Checkpoint
from model_store.text.chat_messages import REASONING, SpecialText, as_values, tools_as_values
from model_store.text.jinja import JinjaTemplate, can_write
from model_store.text.recent import Recent
from model_store.text.runs import UNLIMITED, Place, Run, RunTokenizer, TooManyTokens, Unrenderable
from model_store.text.tokenizer_file import load_tokenizer

KEPT: Final = 8_000_000
"""Most characters and tokens, together, of chats that are kept rendered; and of turns that are kept marked."""
TURN_CHARS: Final = 256
"""Characters that each turn counts in addition to its text, so that the number of short turns is bounded too."""
WRITTEN_CHARS: Final = 1_000_000
"""Characters that a template may write in addition to eight for each of the chat: JSON escapes take up to six."""


class ReadTokens(NamedTuple):
    """Token ids [T] and the positions at which a score is read [R]; the last is the last token."""

    token_ids: list[int]
    reads: list[int]


class ChatRenderer:
    """Renders with one tokenizer and one chat template; safe to call from several threads.

    Args:
        tokenizer: makes token ids of texts.
        source: the Jinja text of the template.
        chat: what the template is rendered with.
        pad_token_id: a token at which no step is read; a chat ends before it.

    Raises:
        CheckpointCorrupt: ``source`` is no template, or its special tokens are not tokens everywhere.
    """

    def __init__(self, tokenizer: Tokenizer, source: str, chat: ChatTemplate, pad_token_id: int | None = None) -> None:
        self.chat = chat
        self.pad_token_id = pad_token_id
        self._runs = RunTokenizer(tokenizer)
        self._special = SpecialText(self._runs.special)
        try:
            self._template = JinjaTemplate(source, chat.date)
        except ValueError as error:
            raise CheckpointCorrupt(f"the chat template cannot be used: {error}") from error
        texts = (source, *chat.variables.values())
        self._written = [token for token in self._runs.special if any(can_write(text, token) for text in texts)]
        self._runs.refuse_conditional(self._written)
        self._chats = Recent[Conversation, list[int]](KEPT, _chat_size)
        self._turns = Recent[Message, dict[str, Any]](KEPT, _turn_size)

    def count_unknown(self, token_ids: Sequence[int]) -> int:
        """The tokens that stand for text outside the tokenizer's vocabulary; 0 if it has none for such text."""
        unknown = self._runs.unknown_id
        return 0 if unknown is None else token_ids.count(unknown)

    def count_tokens(self, texts: Sequence[str], max_tokens: int) -> list[int]:
        """The tokens of each text on its own, ``max_tokens + 1`` if it has more."""
        return self._runs.count([Run(text, Place.WITHIN) for text in texts], max_tokens)

    def refuse_too_few_rows(self, rows: int) -> None:
        """Checks that every token id that a chat can produce is below ``rows``, the size of the embedding.

        Raises:
            CheckpointCorrupt: a chat could become a token without a row.
        """
        largest = max(self._runs.largest_id, *(self._runs.special[token] for token in self._written), 0)
        if largest >= rows:
            raise CheckpointCorrupt(f"the tokenizer has a token {largest} and the embedding only {rows} rows")

    def token_ids(self, conversation: Conversation, max_tokens: int = UNLIMITED) -> list[int]:
        """Token ids of a chat, up to the last that is no padding. They are shared: do not change the list.

        Raises:
            TooManyTokens: there are more than ``max_tokens``.
            Unrenderable: the template refuses the chat, or nothing is left of it.
        """
        (token_ids,) = self._chats.find([conversation])
        if token_ids is None:
            token_ids = self._tokenised(self.text(conversation), max_tokens)
            self._chats.keep({conversation: token_ids})
        if len(token_ids) > max_tokens:
            raise TooManyTokens(len(token_ids))
        return token_ids

    def text(self, conversation: Conversation) -> str:
        """The text that the template makes of a chat; special tokens that somebody said stand between marks.

        Raises:
            Unrenderable: the template refuses the chat.
        """
        thinks = conversation.include_reasoning and any(message.reasoning for message in conversation.messages)
        if thinks and self._template.fields.isdisjoint(REASONING):
            raise Unrenderable(
                'reasoning: the chat template of this checkpoint has no place for it; "drop" leaves it out'
            )
        messages = self._values(conversation.messages)
        tools = self._special.marked(tools_as_values(conversation))
        return self._template.render(messages, tools, self.chat.variables, 8 * said_chars(conversation) + WRITTEN_CHARS)

    def _values(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The turns as the template reads them. Agents send their history with every step, so most are known."""
        known = self._turns.find(messages)
        values = [
            self._special.marked(as_values(message, self.chat)) if value is None else value
            for message, value in zip(messages, known, strict=True)
        ]
        self._turns.keep(dict(zip(messages, values, strict=True)))
        return values

    def _tokenised(self, text: str, max_tokens: int) -> list[int]:
        items = self._items(text)
        tokens = iter(self._runs.encode([item for item in items if isinstance(item, Run)], max_tokens))
        ids = list(chain.from_iterable([item] if isinstance(item, int) else next(tokens) for item in items))
        while ids and ids[-1] == self.pad_token_id:
            ids.pop()
        if not ids:
            raise Unrenderable("the checkpoint's chat template makes no text of this chat")
        return ids

    def _items(self, text: str) -> list[Run | int]:
        """The special tokens of a template's text and the runs between them, those that were said on their own.

        Transformers tokenises a piece behind a mark as if it stood within a text, also right after a special token.
        """
        items, place = list[Run | int](), Place.ALONE
        for piece, said in self._special.pieces(text):
            if said:
                self._refuse_as_text(piece)
            for part in [piece] if said else self._runs.split_at_special(piece):
                items.append(part if isinstance(part, int) else Run(part, place))
                place = Place.AFTER_SPECIAL if isinstance(part, int) else Place.WITHIN
            place = Place.WITHIN
        return items

    def _refuse_as_text(self, token: str) -> None:
        """Refuses a special token that the tokenizer makes of plain text too: it could not be told from the others."""
        if self._runs.special[token] in self._runs.encode([Run(token, Place.WITHIN)])[0]:
            raise Unrenderable(f"the checkpoint's tokenizer cannot read {one_line(token)!r} in a chat as plain text")


def merged(chats: Iterable[list[int]]) -> list[ReadTokens]:
    """The sequences to read each chat's last token in: one for all chats that begin with the one before them."""
    sequences = list[ReadTokens]()
    for token_ids in chats:
        before, reads = sequences[-1] if sequences else ReadTokens([], [])
        if sequences and len(before) < len(token_ids) and token_ids[: len(before)] == before:
            sequences[-1] = ReadTokens(token_ids, [*reads, len(token_ids) - 1])
        else:
            sequences.append(ReadTokens(token_ids, [len(token_ids) - 1]))
    return sequences


def _chat_size(conversation: Conversation, token_ids: Sequence[int]) -> int:
    return said_chars(conversation) + len(token_ids)


def _turn_size(message: Message, _: object) -> int:
    return 2 * _turn_chars(message) + TURN_CHARS


def said_chars(conversation: Conversation) -> int:
    """The characters of a chat and its tools."""
    return sum(map(_turn_chars, conversation.messages)) + sum(map(len, conversation.tools))


def _turn_chars(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return len(message.text) + len(message.reasoning or "") + calls


def load_chat_renderer(checkpoint: Checkpoint) -> ChatRenderer:
    """The renderer of a checkpoint with a chat template, from ``tokenizer.json``, its template and its manifest.

    Raises:
        CheckpointCorrupt: a file is missing or cannot be used.
        ManifestInvalid: the manifest has no ``chat``.
    """
    path, manifest = checkpoint.path, checkpoint.manifest
    if manifest.chat is None:
        raise ManifestInvalid(f"{manifest.reference}: it renders by texts, not by its chat template")
    try:
        source = (path / CHAT_TEMPLATE).read_text(encoding="utf-8")
        return ChatRenderer(load_tokenizer(path), source, manifest.chat, manifest.score.pad_token_id)
    except (OSError, ValueError, CheckpointCorrupt) as error:
        raise CheckpointCorrupt(f"{manifest.reference}: {one_line(str(error), 300)}") from error
