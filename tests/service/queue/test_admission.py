from collections.abc import Sequence

import pytest

from agentprm.errors import Overloaded, TooLong
from service.queue.admission import Admission, DrainRate
from service.queue.fair_queue import Entry, FairQueue, Priority
from service.queue.terms import Terms

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


class Door:
    """A queue of 100 tokens, its admission, and the requests that were pushed out of it."""

    def __init__(self) -> None:
        self.queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
        self.pushed_out: list[tuple[Entry, Overloaded]] = []
        self.admission = Admission(self.queue, 100, lambda *refused: self.pushed_out.append(refused))

    def send(self, *costs: int, caller: str = "a", priority: Priority = INTERACTIVE) -> Entry:
        entry = Entry(costs=list(costs), caller=caller, priority=priority)
        self.admission.admit(entry.waiting, Terms(caller, priority), now=0.0)
        self.queue.add(entry)
        return entry

    def refused(self, cost: int, caller: str = "a", priority: Priority = INTERACTIVE) -> Overloaded:
        with pytest.raises(Overloaded) as refused:
            self.send(cost, caller=caller, priority=priority)
        return refused.value

    def is_open(self, caller: str = "a", priority: Priority = INTERACTIVE) -> bool:
        try:
            self.admission.refuse_if_full(caller, priority)
        except Overloaded:
            return False
        return True


def test_a_full_queue_that_has_refused_is_closed_until_a_part_of_it_has_drained() -> None:
    door = Door()
    for _ in range(19):
        door.send(5)
    assert door.is_open()
    door.refused(10)
    for _ in range(4):
        assert not door.is_open()
        door.queue.take(5)
    assert door.is_open()
    for _ in range(5):
        door.send(5)
    assert door.is_open()


def test_a_large_request_that_was_refused_closes_no_queue_that_has_room() -> None:
    door = Door()
    door.send(50)
    door.refused(60)
    assert door.is_open()


def test_a_queue_is_closed_for_the_caller_and_the_priority_that_were_refused() -> None:
    door = Door()
    door.send(60)
    door.send(40, priority=BULK)
    door.refused(1, priority=BULK)
    assert [door.is_open("a", BULK), door.is_open("a"), door.is_open("b", BULK), door.is_open("b")] == [
        False,
        True,
        True,
        True,
    ]


def test_a_closed_queue_opens_for_a_caller_that_holds_less_than_its_share_again() -> None:
    door = Door()
    for _ in range(10):
        door.send(10)
    door.refused(10)
    for _ in range(5):
        door.send(10, caller="b")
    assert door.queue.held == {"a": 50, "b": 50}
    assert not door.is_open()
    door.queue.take(10)
    door.queue.take(10)
    door.queue.take(10)
    door.send(10, caller="b")
    door.send(10, caller="b")
    assert door.queue.tokens >= 80
    assert door.queue.held["a"] < 40
    assert door.is_open()


def test_a_refusal_tells_a_caller_what_it_holds_and_its_share_and_nothing_of_others() -> None:
    door = Door()
    door.send(50)
    door.send(50, caller="another")
    refusal = door.refused(10)
    assert refusal.details == {"queued_tokens": 100, "tokens": 10, "limit": 100, "held": 50, "share": 50}
    assert "another" not in str(refusal)


def test_alone_too_long_is_too_long_for_every_caller_and_pushes_nobody_out() -> None:
    door = Door()
    for caller in ("a", "b"):
        with pytest.raises(TooLong):
            door.send(101, caller=caller)
        door.send(30, caller=caller)
    assert door.pushed_out == []


def retry_after(door: Door, *held: tuple[str, int], rate: Sequence[int] = (100, 100)) -> float:
    for tokens in rate:
        door.admission.rate.record(tokens, 1.0)
    for caller, tokens in held:
        door.send(tokens, caller=caller)
    refusal = door.refused(20)
    assert refusal.retry_after is not None
    return refusal.retry_after


def test_retry_after_is_the_time_until_the_caller_falls_below_its_share_in_its_turns() -> None:
    assert retry_after(Door(), ("a", 100)) == pytest.approx((100 + 20 - 80) / 100)
    beside_another = retry_after(Door(), ("a", 60), ("b", 40))
    assert beside_another == pytest.approx(((60 + 20 - 40) + 40) / 100)


def test_the_pace_is_that_of_the_latest_batches_but_not_of_the_first() -> None:
    rate = DrainRate()
    assert rate.seconds_for(0) == 0.0
    assert rate.seconds_for(1000) == 1.0
    rate.record(16, 60.0)
    assert rate.seconds_for(1000) == 1.0
    rate.record(100, 1.0)
    assert rate.seconds_for(1000) == pytest.approx(10.0)
    for _ in range(100):
        rate.record(200, 1.0)
    assert rate.seconds_for(1000) == pytest.approx(5.0, rel=1e-3)
