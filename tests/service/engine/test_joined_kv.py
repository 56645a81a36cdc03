"""Joined copies of KV against ``torch.cat``."""

import gc

import torch
from torch import Tensor

from service.engine.joined_kv import JoinedKV

TOKEN_BYTES = 2 * 2 * 2 * 4 * 4
CONTEXT_LENGTH = 100
PLENTY = 10**9


def piece(tokens: int) -> Tensor:
    return torch.randn(2, 2, 2, tokens, 4)


def assert_joined(joined: JoinedKV, pieces: list[Tensor]) -> Tensor:
    found = joined.join(pieces, PLENTY)
    assert torch.equal(found, torch.cat(pieces, 3))
    return found


def test_one_piece_is_not_copied() -> None:
    joined, single = JoinedKV(CONTEXT_LENGTH), piece(3)
    assert joined.join([single], PLENTY) is single
    assert joined.bytes == 0


def test_a_growing_history_stays_in_its_buffer_until_the_room_is_used_up() -> None:
    joined, pieces = JoinedKV(CONTEXT_LENGTH), [piece(10), piece(10)]
    places = []
    for _ in range(4):
        places.append(assert_joined(joined, pieces).data_ptr())
        pieces.append(piece(5))
    assert places[0] == places[1] == places[2] != places[3]
    assert joined.bytes == 35 * 3 // 2 * TOKEN_BYTES


def test_a_step_costs_the_copy_of_that_step() -> None:
    """The test overwrites a piece that was copied before; the copy does not change, so it was not read again."""
    joined, pieces = JoinedKV(CONTEXT_LENGTH), [piece(10), piece(10)]
    before = assert_joined(joined, pieces).clone()
    pieces[0].zero_()
    assert torch.equal(joined.join([*pieces, piece(4)], PLENTY)[:, :, :, :20], before)


def test_histories_with_the_same_beginning_have_separate_copies() -> None:
    joined, first = JoinedKV(CONTEXT_LENGTH), [piece(5), piece(6), piece(7)]
    place = assert_joined(joined, first).data_ptr()
    other = [*first[:2], piece(3), piece(1)]
    assert assert_joined(joined, other).data_ptr() != place
    assert_joined(joined, first[:2])
    assert assert_joined(joined, first).data_ptr() == place
    assert joined.bytes == (27 + 22) * TOKEN_BYTES


def test_a_copy_whose_history_is_evicted_is_reused_for_one_with_the_same_beginning() -> None:
    joined, first = JoinedKV(CONTEXT_LENGTH), [piece(5), piece(6), piece(7)]
    place = assert_joined(joined, first).data_ptr()
    del first[2]
    assert assert_joined(joined, [*first, piece(3)]).data_ptr() == place


def test_runs_with_different_beginnings_do_not_overwrite_each_other() -> None:
    joined, runs = JoinedKV(CONTEXT_LENGTH), [[piece(3), piece(4)] for _ in range(3)]
    views = [joined.join(run, PLENTY) for run in runs]
    for view, run in zip(views, runs, strict=True):
        assert torch.equal(view, torch.cat(run, 3))


def test_a_buffer_has_no_room_beyond_the_context_length_or_the_bytes_that_may_be_kept() -> None:
    joined = JoinedKV(context_length=12)
    assert_joined(joined, [piece(5), piece(6)])
    assert joined.bytes == 12 * TOKEN_BYTES
    joined = JoinedKV(CONTEXT_LENGTH)
    joined.join([piece(5), piece(6)], 15 * TOKEN_BYTES)
    assert joined.bytes == 11 * TOKEN_BYTES


def test_the_least_recently_used_copies_are_dropped_first() -> None:
    joined, old, new = JoinedKV(CONTEXT_LENGTH), [piece(10), piece(10)], [piece(10), piece(10)]
    kept = assert_joined(joined, old).clone()
    assert_joined(joined, new)
    assert_joined(joined, old)
    joined.trim(30 * TOKEN_BYTES)
    assert joined.bytes == 30 * TOKEN_BYTES
    old[0].zero_()
    assert torch.equal(joined.join(old, PLENTY), kept), "copied again"
    joined.trim(0)
    assert joined.bytes == 0


def test_a_copy_neither_keeps_its_pieces_alive_nor_outlives_them() -> None:
    joined, pieces = JoinedKV(CONTEXT_LENGTH), [piece(5), piece(6)]
    assert_joined(joined, pieces)
    del pieces
    gc.collect()
    joined.trim(PLENTY)
    assert joined.bytes == 0
