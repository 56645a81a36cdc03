"""How a raw score lies in Redis: format, float64, and a check that binds both to their key.

The check tells a score from whatever else may come back under its key: another program's value, a cut one, or the
answer to another question.
"""

import math
import struct
from typing import Final
from zlib import crc32

from service.score_cache.keys import FORMAT, Key

_SCORE: Final = struct.Struct("<Bd")
_CHECK: Final = struct.Struct("<I")


def pack(key: Key, raw: float) -> bytes:
    """Thirteen bytes; the score comes back bit for bit."""
    score = _SCORE.pack(FORMAT, raw)
    return score + _CHECK.pack(crc32(score, crc32(key)))


def unpack(key: Key, value: object) -> float | None:
    """The score under ``key``; None if this is not one that ``pack`` made for it."""
    if not isinstance(value, bytes) or len(value) != _SCORE.size + _CHECK.size:
        return None
    score, check = value[: _SCORE.size], value[_SCORE.size :]
    if check != _CHECK.pack(crc32(score, crc32(key))):
        return None
    version, raw = _SCORE.unpack(score)
    return raw if version == FORMAT and math.isfinite(raw) else None
