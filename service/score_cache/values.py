"""Bytes of a raw score in Redis: format, float64, and a checksum that covers both and the key.

The checksum tells a score from anything else that may come back for its key: another program's value, a truncated one,
or the reply to another command.
"""

import math
import struct
from typing import Final
from zlib import crc32

from service.score_cache.keys import FORMAT, Key

_SCORE: Final = struct.Struct("<Bd")
_CHECK: Final = struct.Struct("<I")


def pack(key: Key, raw: float) -> bytes:
    """Returns 13 bytes, from which ``unpack`` returns exactly the same score."""
    score = _SCORE.pack(FORMAT, raw)
    return score + _CHECK.pack(crc32(score, crc32(key)))


def unpack(key: Key, value: object) -> float | None:
    """Returns the score in ``value``; None if ``pack`` did not make it for ``key``."""
    if not isinstance(value, bytes) or len(value) != _SCORE.size + _CHECK.size:
        return None
    score, check = value[: _SCORE.size], value[_SCORE.size :]
    if check != _CHECK.pack(crc32(score, crc32(key))):
        return None
    version, raw = _SCORE.unpack(score)
    return raw if version == FORMAT and math.isfinite(raw) else None
