"""Errors of unions: the branch that the caller meant, at a place that names fields and nothing else.

Pydantic reports each branch of a union that failed, under the branch's own name. A text where a list is wrong would be
two errors, one of them about texts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Tag

TEXT: Final = Tag("<text>")
PARTS: Final = Tag("<parts>")
MESSAGE: Final = Tag("<message>")

_TAGS: Final = frozenset(tag.tag for tag in (TEXT, PARTS, MESSAGE))
_WRONG_TYPES: Final = frozenset({"string_type", "list_type", "model_type", "dict_type", "model_attributes_type"})
_EXPECTED: Final = "Input should be "
_JSON_WORDS: Final = {"model_type": "Input should be an object", "list_type": "Input should be a valid array"}
"""What pydantic says of JSON text. Of Python's objects it says "dictionary" and "list", and names our classes."""


def meant(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns pydantic's errors without those of branches that the value cannot have been meant for.

    A branch of another type than the value is one. If all are, one error lists their types.
    """
    errors = [{**error, "msg": _JSON_WORDS.get(error["type"], error["msg"])} for error in errors]
    kept: list[dict[str, Any]] = []
    unions: dict[tuple[int | str, ...], dict[str, Any]] = {}  # those no branch of which was meant, by their places
    for error in errors:
        place = tuple(part for part in error["loc"] if part not in _TAGS)
        if not _is_wrong_branch(error):
            kept.append({**error, "loc": place})
        elif any(_is_meant(other, error["loc"][:-1]) for other in errors):
            continue
        elif place in unions:
            unions[place]["msg"] += f" or {error['msg'].removeprefix(_EXPECTED)}"
        else:
            unions[place] = {**error, "loc": place}
            kept.append(unions[place])
    return kept


def _is_wrong_branch(error: Mapping[str, Any]) -> bool:
    """Returns whether a branch of a union failed because the value is of another type."""
    return bool(error["loc"]) and error["loc"][-1] in _TAGS and error["type"] in _WRONG_TYPES


def _is_meant(error: Mapping[str, Any], union: Sequence[int | str]) -> bool:
    """Returns whether the error lies in a branch of ``union`` that takes values of this type."""
    loc, depth = error["loc"], len(union)
    if len(loc) <= depth or tuple(loc[:depth]) != tuple(union) or loc[depth] not in _TAGS:
        return False
    return len(loc) > depth + 1 or error["type"] not in _WRONG_TYPES
