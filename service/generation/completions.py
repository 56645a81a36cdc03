"""What text-generation servers answer, read strictly: a reply that lacks something is no reply.

Two forms, ``/v1/chat/completions`` of OpenAI and the generate route of TGI, become one.
"""

from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from agentprm.wire import Text

Logprob = Annotated[float, Field(le=0.001, allow_inf_nan=False)]
"""At most 0, and a little more for servers that round."""


class Alternative(NamedTuple):
    """A token that may stand at a place, and the logarithm of its probability."""

    text: str
    logprob: float


class Token(NamedTuple):
    """A generated token, and the likeliest for its place, itself among them."""

    text: str
    alternatives: list[Alternative]


class Generated(NamedTuple):
    """``tokens`` is empty where their probabilities were not asked for.

    ``complete``: whether the model ended it, and not the limit. ``used``: tokens read and written, as far as told.
    """

    text: str
    tokens: list[Token]
    complete: bool
    used: int


class _Scored(BaseModel):
    token: str
    logprob: Logprob


class _ChatToken(_Scored):
    top_logprobs: list[_Scored]


class _ChatTokens(BaseModel):
    content: list[_ChatToken]


class _Message(BaseModel):
    content: Text | None = None  # of a model that was still thinking


class _Choice(BaseModel):
    message: _Message
    finish_reason: str
    logprobs: _ChatTokens | None = None


class _Used(BaseModel):
    total_tokens: Annotated[int, Field(ge=0)]


class _Chat(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Used | None = None


class _TextToken(BaseModel):
    text: str
    logprob: Logprob


class _Details(BaseModel):
    finish_reason: str
    generated_tokens: Annotated[int, Field(ge=0)]
    tokens: list[_TextToken]
    top_tokens: list[list[_TextToken]]


class _Text(BaseModel):
    generated_text: Text
    details: _Details


def from_chat(reply: object) -> Generated:
    """Raises ValueError where it is not of that form."""
    chat = _Chat.model_validate(reply)
    choice = chat.choices[0]
    tokens = [
        _token(Alternative(one.token, one.logprob), [Alternative(top.token, top.logprob) for top in one.top_logprobs])
        for one in (choice.logprobs.content if choice.logprobs else ())
    ]
    used = chat.usage.total_tokens if chat.usage else 0
    return Generated(choice.message.content or "", tokens, choice.finish_reason != "length", used)


def from_text(reply: object) -> Generated:
    """Raises ValueError where it is not of that form."""
    text = _Text.model_validate(reply)
    details = text.details
    tokens = [
        _token(Alternative(one.text, one.logprob), [Alternative(top.text, top.logprob) for top in tops])
        for one, tops in zip(details.tokens, details.top_tokens, strict=True)
    ]
    return Generated(text.generated_text, tokens, details.finish_reason != "length", details.generated_tokens)


def _token(chosen: Alternative, likeliest: list[Alternative]) -> Token:
    there = any(other.text == chosen.text for other in likeliest)
    return Token(chosen.text, likeliest if there else [chosen, *likeliest])
