"""Odd JSON, legal or nearly legal, which fuzz tests put into good documents."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

from hypothesis import strategies as st

_VALUE: Final = "<value>"
_NAME: Final = "<name>"
_SHAPES: Final = [("[", "", "]"), ('{"a":', "0", "}"), ('[{"a":', "0", "}]")]

LONG_NUMBERS: Final = ["9" * 5000, "-" + "9" * 4000, "0." + "3" * 5000]
NUMBERS: Final = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-0", "1.0", "1e-999", *LONG_NUMBERS]
TEXTS: Final = ['""', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\n"', f'"{"x" * 50_000}"']
OTHERS: Final = ["null", "true", "[]", "{}", "[[]]", "[null]", '["", ""]', '{"": ""}', '{"\\ud800": 1}']
VALUES: Final = [*NUMBERS, *TEXTS, *OTHERS]

nests: Final = st.builds(
    lambda shape, depth: shape[0] * depth + shape[1] + shape[2] * depth,
    st.sampled_from(_SHAPES),
    st.one_of(st.integers(100, 3000), st.sampled_from([10_000, 100_000])),
)
"""Texts of arrays and objects in one another."""


def in_each_place(document: Any, value: str) -> Iterator[str]:
    """``document`` as JSON with ``value`` instead of one of its values, for each of them."""
    for at in range(len(list(_places(document)))):
        changed = copy.deepcopy(document)
        holder, key = list(_places(changed))[at]
        holder[key] = _VALUE
        yield json.dumps(changed).replace(f'"{_VALUE}"', value)


def in_each_object(document: Any, name: str, value: str) -> Iterator[str]:
    """``document`` as JSON with one more field, for each of its objects; a field of that name may be there already."""
    for at in range(len(list(_objects(document)))):
        changed = copy.deepcopy(document)
        list(_objects(changed))[at][_NAME] = _VALUE
        yield json.dumps(changed).replace(f'"{_NAME}"', name).replace(f'"{_VALUE}"', value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within ``value``, as its container and its name or position there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield value, key
        yield from _places(part)


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    yield document
    for holder, key in _places(document):
        if isinstance(holder[key], dict):
            yield holder[key]
