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
"""JSON can spell half a character, which no tokenizer takes and no reply can echo."""
NonEmpty = Annotated[str, Field(min_length=1)]
"""Of whole characters too: pydantic looks where there is a length to check."""
Milliseconds = Annotated[int, Field(gt=0, le=3_600_000)]
Unsent = SkipJsonSchema[None]  # what a header is where it is left out; no header can say null


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Reply(Body):
    model_config = ConfigDict(extra="ignore")
