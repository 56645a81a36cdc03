"""Numbers as Grafana writes them, in the units that the dashboards use."""

from collections.abc import Sequence
from typing import Final

_BINARY: Final = ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B"))
_DECIMAL: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_SECONDS: Final = ((1, " s"), (1e-3, " ms"), (1e-6, " µs"))


def formatted(value: float, unit: str) -> str:
    if value == 0:
        return "0%" if unit == "percentunit" else "0"
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s":
        return _scaled(value, _SECONDS)
    if unit in ("bytes", "Bps"):
        return _scaled(value, _BINARY) + ("/s" if unit == "Bps" else "")
    suffix = {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")
    return _scaled(value, _DECIMAL) + suffix


def _scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
    size, name = next(((size, name) for size, name in scales if abs(value) >= size), scales[-1])
    return f"{value / size:.3g}{name}"
