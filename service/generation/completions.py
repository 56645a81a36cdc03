"""Replies of text-generation servers, validated strictly: one that lacks a needed field is an error.

Two wire forms, ``/v1/chat/completions`` of OpenAI and the generate route of TGI, become one ``Completion``.
"""

from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, Field

from agentprm.wire import Text

Logprob = Annotated[float, Field(le=0.001, allow_inf_nan=False)]
"""Natural logarithm of a probability: at most 0, with a margin for servers that round."""

_CUT: Final = ("length", "content_filter", "abort")
"""Reasons for which a server ends a text that the model had not ended; the last two without a token limit."""


class Alternative(NamedTuple):
    """A token that could have been generated at a position, and its log-probability."""

    text: str
    logprob: float


class Token(NamedTuple):
    """A generated token, and the likeliest tokens at its position, itself among them."""

    text: str
    alternatives: list[Alternative]


class Completion(NamedTuple):
    """A generated text.

    ``tokens`` is empty unless log-probabilities were requested. ``complete``: the model ended the text itself, and no
    token limit or filter cut it. ``used``: tokens of prompt and completion, as far as the server reports them.
    """

    text: str
    tokens: list[Token]
    complete: bool
    used: int


class _ChatAlternative(BaseModel):
    token: str
    logprob: Logprob


class _ChatToken(_ChatAlternative):
    top_logprobs: list[_ChatAlternative]


class _ChatLogprobs(BaseModel):
    content: list[_ChatToken]


class _ChatMessage(BaseModel):
    content: Text | None = None  # None: a model that was still thinking at its token limit


class _ChatChoice(BaseModel):
    message: _ChatMessage
    finish_reason: str
    logprobs: _ChatLogprobs | None = None


class _ChatUsage(BaseModel):
    total_tokens: Annotated[int, Field(ge=0)]


class _ChatReply(BaseModel):
    choices: Annotated[list[_ChatChoice], Field(min_length=1)]
    usage: _ChatUsage | None = None


class _TextToken(BaseModel):
    text: str
    logprob: Logprob


class _TextDetails(BaseModel):
    finish_reason: str
    generated_tokens: Annotated[int, Field(ge=0)]
    tokens: list[_TextToken]
    top_tokens: list[list[_TextToken]] | None = None  # None: not requested


class _TextReply(BaseModel):
    generated_text: Text
    details: _TextDetails


def from_chat(reply: object) -> Completion:
    """Returns the first choice of a chat completion. Raises ValueError if ``reply`` is not of that form."""
    chat = _ChatReply.model_validate(reply)
    choice = chat.choices[0]
    tokens = [
        _token(
            Alternative(token.token, token.logprob), [Alternative(top.token, top.logprob) for top in token.top_logprobs]
        )
        for token in (choice.logprobs.content if choice.logprobs else ())
    ]
    used = chat.usage.total_tokens if chat.usage else 0
    return Completion(choice.message.content or "", tokens, choice.finish_reason not in _CUT, used)


def from_text(reply: object) -> Completion:
    """Returns a completion of TGI's generate route. Raises ValueError if ``reply`` is not of that form."""
    text = _TextReply.model_validate(reply)
    details = text.details
    told = details.tokens if details.top_tokens is not None else []
    tokens = [
        _token(Alternative(token.text, token.logprob), [Alternative(top.text, top.logprob) for top in tops])
        for token, tops in zip(told, details.top_tokens or [], strict=True)
    ]
    return Completion(text.generated_text, tokens, details.finish_reason not in _CUT, details.generated_tokens)


def _token(chosen: Alternative, likeliest: list[Alternative]) -> Token:
    listed = any(other.text == chosen.text for other in likeliest)
    return Token(chosen.text, likeliest if listed else [chosen, *likeliest])
