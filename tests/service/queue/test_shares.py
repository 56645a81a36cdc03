"""Whoever holds most gives way: a caller within its share is never refused, however others flood."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentprm.errors import Overloaded
from service.queue.admission import Admission
from service.queue.fair_queue import Entry, FairQueue, Priority
from service.queue.shares import BULK_SHARE, may_take_place
from service.queue.terms import Terms

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
LIMIT = 100


class Room:
    """A queue of ``LIMIT`` tokens behind its admission. ``pushed_out`` are the requests refused while they waited."""

    def __init__(self) -> None:
        self.queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
        self.pushed_out: list[Entry] = []
        self.admission = Admission(self.queue, LIMIT, lambda entry, _: self.pushed_out.append(entry))

    def send(self, caller: str, cost: int, priority: Priority = INTERACTIVE) -> Entry | None:
        """Returns the waiting request; None if it was refused."""
        return self.send_parts(caller, [cost], priority)

    def send_parts(self, caller: str, costs: list[int], priority: Priority = INTERACTIVE) -> Entry | None:
        entry = Entry(costs=costs, caller=caller, priority=priority)
        try:
            self.admission.admit(entry.waiting, Terms(caller, priority), now=0.0)
        except Overloaded:
            return None
        self.queue.add(entry)
        return entry


class Arrivals(RuleBasedStateMachine):
    """Requests of several callers come, leave and are computed in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        self.waiting: list[Entry] = []

    @rule(
        caller=st.sampled_from("abcd"),
        costs=st.lists(st.integers(1, 30), min_size=1, max_size=3) | st.just([LIMIT]),
        priority=st.sampled_from(Priority),
    )
    def send(self, caller: str, costs: list[int], priority: Priority) -> None:
        held, bulk = self.room.queue.held.copy(), self.room.queue.held_by_bulk.copy()
        callers = len(held.keys() | {caller})
        mine, before = held[caller] + sum(costs), len(self.room.pushed_out)
        entry = self.room.send_parts(caller, [*costs], priority)
        given_way = self.room.pushed_out[before:]
        if mine * callers <= LIMIT:
            assert entry is not None, "a caller within its share is never refused"
        if sum(held.values()) + sum(costs) <= LIMIT:
            assert entry is not None, "what fits is never refused"
            assert not given_way, "nobody gives way to what fits"
        if entry is None:
            assert not given_way, "nobody gives way to what is refused"
        else:
            self.waiting.append(entry)
        for gone in given_way:
            assert gone in self.waiting, "a request is pushed out once, and only while it waits"
            self.waiting.remove(gone)
            over_bulk = gone.priority is BULK and priority is INTERACTIVE and bulk.total() > BULK_SHARE * LIMIT
            over = over_bulk and bulk[gone.caller] * len(bulk) > BULK_SHARE * LIMIT
            assert over or held[gone.caller] * callers > LIMIT, "a caller within its share gives nothing"

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.room.queue.discard(entry)
        self.waiting.remove(entry)

    @rule(budget=st.integers(1, 30))
    def compute(self, budget: int) -> None:
        self.room.queue.take(budget)
        self.waiting = [entry for entry in self.waiting if not entry.spent]

    @invariant()
    def no_more_waits_than_may(self) -> None:
        assert self.room.queue.tokens <= LIMIT

    @invariant()
    def what_waits_is_what_was_admitted_and_not_pushed_out(self) -> None:
        assert self.room.queue.tokens == sum(entry.waiting for entry in self.waiting)
        assert self.room.queue.held.total() == self.room.queue.tokens
        assert set(self.room.queue.held) == {entry.caller for entry in self.waiting}

    def teardown(self) -> None:
        for _ in range(3 * LIMIT + 100):
            self.compute(7)
        assert not self.waiting, "what is not pushed out is computed in the end"


Arrivals.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestArrivals = Arrivals.TestCase


@given(
    flood=st.lists(st.tuples(st.integers(1, LIMIT), st.sampled_from(Priority)), max_size=60),
    own=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 40)), max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_beside_any_flood_of_one_caller_another_gets_all_of_its_half_and_keeps_it(
    flood: list[tuple[int, Priority]], own: list[tuple[int, int]]
) -> None:
    room, sent = Room(), 0
    for cost, more in own:
        for size, kind in flood[: more + 1]:
            room.send("flood", size, kind)
        if sent + cost <= LIMIT / 2:
            assert room.send("other", cost)
            sent += cost
        if more % 3 == 0:
            room.queue.take(more)
            sent = room.queue.held["other"]
    assert all(entry.caller == "flood" for entry in room.pushed_out)


@given(costs=st.lists(st.integers(1, LIMIT), max_size=30), priority=st.sampled_from(Priority))
def test_a_lone_caller_may_fill_the_whole_queue_and_is_refused_only_what_does_not_fit(
    costs: list[int], priority: Priority
) -> None:
    room = Room()
    for cost in costs:
        fits = room.queue.tokens + cost <= LIMIT
        assert bool(room.send("alone", cost, priority)) is fits
    assert room.pushed_out == []


def test_the_newest_of_whoever_holds_most_gives_way_and_bulk_before_interactive() -> None:
    room = Room()
    first, last = room.send("flood", 30), room.send("flood", 30)
    bulk = room.send("flood", 20, BULK)
    small = room.send("small", 20)
    assert room.send("other", 10)
    assert room.pushed_out == [bulk]
    assert room.send("other", 20)
    assert room.pushed_out == [bulk, last]
    assert None not in (first, small)


def test_what_has_begun_gives_way_last() -> None:
    room = Room()
    begun, newer = room.send_parts("flood", [10, 40]), room.send("flood", 50)
    room.queue.take(10)
    assert room.send("other", 30)
    assert room.pushed_out == [newer]
    room.send("flood", 20)
    assert room.send("other", 15)
    assert begun not in room.pushed_out


def test_one_huge_request_that_has_begun_gives_way_too() -> None:
    room = Room()
    huge = room.send_parts("flood", [1, 99])
    room.queue.take(1)
    assert room.send("other", 50)
    assert room.pushed_out == [huge]


def test_two_equal_floods_do_not_push_each_other_out() -> None:
    room = Room()
    for _ in range(5):
        assert room.send("one", 10)
        assert room.send("two", 10)
    for _ in range(5):
        assert room.send("one", 10) is None
        assert room.send("two", 10) is None
    assert room.pushed_out == []


def test_beside_many_small_callers_one_that_holds_most_still_gives_way() -> None:
    room = Room()
    for _ in range(8):
        room.send("flood", 10)
    for number in range(20):
        room.send(f"small {number}", 1)
    assert room.send("other", 20), "its share by number is less than 5"
    assert {entry.caller for entry in room.pushed_out} == {"flood"}


@pytest.mark.parametrize("callers", [1, 2, 10])
def test_bulk_of_any_number_of_callers_leaves_half_of_the_queue_to_interactive_requests(callers: int) -> None:
    room = Room()
    for number in range(20):
        assert room.send(f"bulk {number % callers}", 5, BULK)
    admitted = [room.send("agent", 5) for _ in range(10)]
    assert None not in admitted
    assert {entry.priority for entry in room.pushed_out} == {BULK}
    assert room.queue.held_by_bulk.total() == BULK_SHARE * LIMIT


def test_a_callers_own_bulk_gives_way_to_its_interactive_requests() -> None:
    room = Room()
    for _ in range(10):
        room.send("one", 10, BULK)
    assert room.send("one", 10)
    assert room.send("one", 10, BULK) is None


@given(limit=st.integers(1, 2000), wishes=st.lists(st.sampled_from(["flood", "other", "third"]), max_size=300))
@settings(max_examples=100, deadline=None)
def test_beside_a_flood_others_find_a_tenth_of_the_places_free_in_any_order(limit: int, wishes: list[str]) -> None:
    held = Counter[str]()
    for caller in wishes:
        for _ in range(limit if caller == "flood" else 1):
            others = held.total() - held["flood"]
            allowed = may_take_place(held[caller], limit - held.total())
            if caller != "flood" and others < 8 * (limit - 8) / 81:
                assert allowed
            held[caller] += allowed
        assert held.total() <= limit


def test_a_single_place_may_be_taken() -> None:
    assert may_take_place(0, 1)
    assert not may_take_place(0, 0)
