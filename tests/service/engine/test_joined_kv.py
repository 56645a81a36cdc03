"""Joined copies against ``torch.cat``."""

import gc

import torch
from torch import Tensor

from service.engine.joined_kv import JoinedKV

TOKEN_BYTES = 2 * 2 * 2 * 4 * 4
LONGEST = 100
PLENTY = 10**9


def piece(tokens: int) -> Tensor:
    return torch.randn(2, 2, 2, tokens, 4)


def assert_joined(joined: JoinedKV, pieces: list[Tensor]) -> Tensor:
    found = joined.join(pieces, PLENTY)
    assert torch.equal(found, torch.cat(pieces, 3))
    return found


def test_one_piece_is_not_copied() -> None:
    joined, one = JoinedKV(LONGEST), piece(3)
    assert joined.join([one], PLENTY) is one
    assert joined.bytes == 0


def test_what_has_grown_stays_where_it_is_until_its_room_is_used_up() -> None:
    joined, pieces = JoinedKV(LONGEST), [piece(10), piece(10)]
    places = []
    for _ in range(4):
        places.append(assert_joined(joined, pieces).data_ptr())
        pieces.append(piece(5))
    assert places[0] == places[1] == places[2] != places[3]
    assert joined.bytes == 35 * 3 // 2 * TOKEN_BYTES


def test_a_step_costs_the_copy_of_that_step() -> None:
    """What was copied before is not read again: here it is spoilt behind the copy's back."""
    joined, pieces = JoinedKV(LONGEST), [piece(10), piece(10)]
    before = assert_joined(joined, pieces).clone()
    pieces[0].zero_()
    assert torch.equal(joined.join([*pieces, piece(4)], PLENTY)[:, :, :, :20], before)


def test_histories_with_one_beginning_have_copies_of_their_own() -> None:
    joined, first = JoinedKV(LONGEST), [piece(5), piece(6), piece(7)]
    place = assert_joined(joined, first).data_ptr()
    other = [*first[:2], piece(3), piece(1)]
    assert assert_joined(joined, other).data_ptr() != place
    assert_joined(joined, first[:2])
    assert assert_joined(joined, first).data_ptr() == place
    assert joined.bytes == (27 + 22) * TOKEN_BYTES


def test_a_copy_gives_way_to_a_history_that_begins_alike_once_its_own_is_gone() -> None:
    joined, first = JoinedKV(LONGEST), [piece(5), piece(6), piece(7)]
    place = assert_joined(joined, first).data_ptr()
    del first[2]
    assert assert_joined(joined, [*first, piece(3)]).data_ptr() == place


def test_runs_with_other_beginnings_do_not_overwrite_each_other() -> None:
    joined, runs = JoinedKV(LONGEST), [[piece(3), piece(4)] for _ in range(3)]
    views = [joined.join(run, PLENTY) for run in runs]
    for view, run in zip(views, runs, strict=True):
        assert torch.equal(view, torch.cat(run, 3))


def test_there_is_no_room_beyond_the_longest_sequence_or_the_bytes_that_may_be_kept() -> None:
    assert_joined(longest := JoinedKV(context_length=12), [piece(5), piece(6)])
    assert longest.bytes == 12 * TOKEN_BYTES
    (few := JoinedKV(LONGEST)).join([piece(5), piece(6)], 15 * TOKEN_BYTES)
    assert few.bytes == 11 * TOKEN_BYTES


def test_the_least_recently_used_copies_go_first() -> None:
    joined, old, new = JoinedKV(LONGEST), [piece(10), piece(10)], [piece(10), piece(10)]
    kept = assert_joined(joined, old).clone()
    assert_joined(joined, new)
    assert_joined(joined, old)
    joined.trim(30 * TOKEN_BYTES)
    assert joined.bytes == 30 * TOKEN_BYTES
    old[0].zero_()
    assert torch.equal(joined.join(old, PLENTY), kept), "copied again"
    joined.trim(0)
    assert joined.bytes == 0


def test_a_copy_neither_keeps_what_it_was_made_of_nor_outlives_it() -> None:
    joined, pieces = JoinedKV(LONGEST), [piece(5), piece(6)]
    assert_joined(joined, pieces)
    del pieces
    gc.collect()
    joined.trim(PLENTY)
    assert joined.bytes == 0
