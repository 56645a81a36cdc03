import pytest

from agentprm.errors import Overloaded
from service.queue.admission import Admission, DrainRate
from service.queue.fair_queue import Entry, FairQueue, Priority


def entry(cost: int) -> Entry:
    return Entry(costs=[cost], caller="a", priority=Priority.INTERACTIVE)


def test_a_full_queue_that_has_refused_is_closed_until_a_part_of_it_has_drained() -> None:
    queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
    admission = Admission(queue, 100)
    for _ in range(19):
        queue.add(entry(5))
    admission.refuse_if_full()
    with pytest.raises(Overloaded):
        admission.refuse_if_over(10)
    for _ in range(4):
        with pytest.raises(Overloaded):
            admission.refuse_if_full()
        queue.take(5)
    admission.refuse_if_full()
    for _ in range(5):
        queue.add(entry(5))
    admission.refuse_if_full()


def test_a_large_request_that_was_refused_closes_no_queue_that_has_room() -> None:
    queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
    admission = Admission(queue, 100)
    queue.add(entry(50))
    with pytest.raises(Overloaded):
        admission.refuse_if_over(60)
    admission.refuse_if_full()


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
