"""Upper bounds of histogram buckets, one set per unit."""

from typing import Final

SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
TOKENS: Final = tuple(float(2**power) for power in range(4, 18))
SEQUENCES: Final = tuple(float(2**power) for power in range(11))
PROMISE: Final = tuple(twentieth / 20 for twentieth in range(1, 21))
GAIN: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0)
PROGRESS: Final = (*(-gain for gain in reversed(GAIN)), 0.0, *GAIN)
"""Finer near zero: most steps change little."""
