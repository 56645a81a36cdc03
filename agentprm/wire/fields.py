"""Text, body and reply base classes of the wire bodies."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema


def _of_whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_of_whole_characters)]
"""Text without lone surrogates: JSON can write one, but no tokenizer takes it and no reply can echo it."""
NonEmpty = Annotated[str, Field(min_length=1)]
"""Text of one character or more. Pydantic refuses lone surrogates itself where it checks a length."""
Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]
Unsent = SkipJsonSchema[None]  # a header that is absent: no header can hold null, so the schema does not offer it


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Reply(Body):
    model_config = ConfigDict(extra="ignore")
