"""A checkpoint's chat template: the values that its Jinja text is rendered with."""

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Final, Literal

from model_store.errors import ManifestInvalid
from model_store.format.validation import NOT_NULL

CHAT_TEMPLATE: Final = "chat_template.jinja"
"""The file of a checkpoint that holds the template's text, under transformers' own name."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How chats are handed to the Jinja template in ``chat_template.jinja``. A step is scored at the last token.

    ``variables`` are the special tokens that the template reads, by name, such as ``bos_token``. ``date`` is the ISO
    date that its ``strftime_now`` tells, fixed so that a score is the same tomorrow; None if it does not ask.
    ``observation`` is the role of a step's observation, if an item has task and steps instead of messages.

    ``content`` is how the template reads the content of a turn: as one ``text``, as a list of ``parts``, or ``both``.
    With ``empty_content`` a turn without content has an empty one, because the template fails without.
    ``arguments`` is how it reads those of a tool call: as an ``object``, or as JSON ``text``.
    """

    observation: Literal["user", "tool"] = "user"
    content: Literal["text", "parts", "both"] = "text"
    empty_content: bool = False
    arguments: Literal["object", "text"] = "object"
    variables: dict[str, str] = field(default_factory=dict)
    date: Annotated[str | None, NOT_NULL] = None


def check_chat(chat: ChatTemplate) -> None:
    """Raises ManifestInvalid for a date that is none, or a variable that no template can read."""
    if chat.date is not None:
        try:
            date.fromisoformat(chat.date)
        except ValueError as error:
            raise ManifestInvalid(f"prm.json: chat: date must be like 2026-01-31: {error}") from error
    if not all(map(str.isidentifier, chat.variables)):
        raise ManifestInvalid("prm.json: chat: variables must have the names of variables")
