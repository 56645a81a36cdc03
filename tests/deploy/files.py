"""Reads the files that deploy the service."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from service.settings import PREFIX, Settings

ROOT: Final = Path(__file__).parents[2]
VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SETTINGS: Final = {PREFIX + name.upper() for name in Settings.model_fields}
AFTER_DRAIN_SECONDS: Final = 10
"""Seconds for what follows the drain: closing the score cache takes a second a wait, that of the traces five."""
PINNED: Final = re.compile(r"[a-z0-9./-]+:[^:]*\d[^:]*")
"""A tag that holds a number; ``latest`` and no tag do not."""


class _Reset:
    """Value of ``!reset``, which drops what earlier files set."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no stubs
    """YAML with the tags of Compose."""


_Loader.add_constructor("!reset", lambda *_: _Reset())


def read_yaml(path: str) -> Any:
    """Returns a YAML file of the repository."""
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader)


def composed(*paths: str) -> dict[str, Any]:
    """Merges Compose files; later files override earlier ones."""
    whole: dict[str, Any] = {}
    for path in paths:
        whole = _merged(whole, read_yaml(path))
    return whole


def _merged(below: Any, above: Any) -> Any:
    if isinstance(above, dict):
        known = below if isinstance(below, dict) else {}
        over = {key: _merged(known.get(key), value) for key, value in above.items()}
        return {key: value for key, value in (known | over).items() if not isinstance(value, _Reset)}
    return [*below, *above] if isinstance(below, list) and isinstance(above, list) else above


def seconds(duration: str) -> float:
    """Returns the seconds of a duration of Compose or Prometheus, such as ``1m30s``."""
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)([smh])", duration))


def mebibytes(size: str) -> float:
    """Returns the MiB of a size such as ``512mb`` or ``4g``, which Docker and Redis read alike."""
    number, unit = re.fullmatch(r"(\d+)([mg])b?", size).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1, "g": 1024}[unit]


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a rendered chart."""
    return (manifest for manifest in yaml.safe_load_all(text) if manifest)
