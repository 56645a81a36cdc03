import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.score_cache.keys import FORMAT
from service.score_cache.values import pack, unpack

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(raw=finite, key=st.binary())
def test_a_score_comes_back_bit_for_bit(raw: float, key: bytes) -> None:
    found = unpack(key, pack(key, raw))
    assert found is not None
    assert struct.pack("<d", found) == struct.pack("<d", raw)


@given(raw=finite, at=st.integers(0, 12), flip=st.integers(1, 255))
def test_a_changed_byte_is_no_score(raw: float, at: int, flip: int) -> None:
    value = bytearray(pack(b"key", raw))
    value[at] ^= flip
    assert unpack(b"key", bytes(value)) is None


@given(raw=finite, key=st.binary(max_size=8), other=st.binary(max_size=8))
def test_the_score_of_another_key_is_no_score(raw: float, key: bytes, other: bytes) -> None:
    assert (unpack(other, pack(key, raw)) is None) == (key != other)


@pytest.mark.parametrize("value", [b"", b"0.5", b"x" * 13, b"x" * 14, "text", 5, [b"x"], {}])
def test_what_another_program_left_is_no_score(value: object) -> None:
    assert unpack(b"key", value) is None


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_score(raw: float) -> None:
    assert unpack(b"key", pack(b"key", raw)) is None


def test_a_value_of_another_format_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.score_cache.values.FORMAT", FORMAT + 1)
    newer = pack(b"key", 0.5)
    assert unpack(b"key", newer) == 0.5
    monkeypatch.undo()
    assert unpack(b"key", newer) is None
