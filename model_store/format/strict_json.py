"""JSON to dataclasses without coercion (goes if pydantic does it)."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from model_store.errors import ManifestInvalid

MAX_DEPTH: Final = 100
T = TypeVar("T")


def one_line(text: str, limit: int = 80) -> str:
    """What came from a file or another library, fit for a sentence: short, and in one line."""
    return " ".join(text.split()).encode("unicode_escape").decode()[:limit]


def encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return [encode(part) for part in value]
    if not is_dataclass(value):
        return value
    kept = {one.name: getattr(value, one.name) for one in fields(value)}
    for one in fields(value):
        if kept[one.name] == one.default:
            del kept[one.name]
    return {name: encode(part) for name, part in kept.items()}


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


def decode(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from JSON, strictly: every field there, none unknown, no value coerced."""
    if not isinstance(data, Mapping):
        raise ManifestInvalid(f"{where} must be an object")
    hints = get_type_hints(kind)
    needed = {one.name for one in fields(kind) if one.default is MISSING}  # type: ignore[arg-type]
    for wrong, complaint in ((needed - set(data), "is missing"), (set(data) - set(hints), "is not a field")):
        if wrong:
            raise ManifestInvalid(f"{where}: {', '.join(map(one_line, sorted(wrong)[:5]))} {complaint}")
    return kind(**{name: _value(hints[name], data[name], f"{where}: {name}") for name in hints if name in data})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return decode(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ManifestInvalid(f"{where} must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if NoneType in arguments:  # None is how Python holds what is absent; in JSON it is absent
        return _value(arguments[0], value, where)
    return _plain(origin or hint, value, where)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if kinds[1:] == (...,):
        if not isinstance(value, list):
            raise ManifestInvalid(f"{where} must be a list")
        return tuple(_value(kinds[0], part, where) for part in value)
    if not isinstance(value, list) or len(value) != len(kinds):
        raise ManifestInvalid(f"{where} must be a list of {len(kinds)} texts")
    return tuple(_value(one, part, where) for one, part in zip(kinds, value, strict=True))


def _plain(expected: Any, value: Any, where: str) -> Any:
    kinds = (int, float) if expected is float else expected
    if not isinstance(value, kinds) or (isinstance(value, bool) and expected is not bool):
        raise ManifestInvalid(f"{where} must be {_name(expected)}")
    if expected is float:
        try:
            return float(value)
        except OverflowError as error:
            raise ManifestInvalid(f"{where} must be {_name(expected)}") from error
    return value


def _name(expected: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
    return names.get(expected, str(expected))
