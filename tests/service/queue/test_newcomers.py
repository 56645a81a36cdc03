"""Turns of callers that have not been served, beside those that always wait."""

from hypothesis import given, settings
from hypothesis import strategies as st

from service.queue.fair_queue import Entry, FairQueue, Priority


def test_a_caller_that_has_not_been_served_leads_the_next_batch_which_is_a_short_one() -> None:
    queue = queue_of("flood", 100, 100, 100)
    assert taken(queue, 170) == [("flood", 100), ("flood", 70)]
    add(queue, "victim", 70)
    assert taken(queue, 170) == [("victim", 70), ("flood", 30)], (
        "the rest of what was cut fits, and no new piece is cut"
    )
    assert taken(queue, 170) == [("flood", 100)]


def test_whole_sequences_of_others_fill_the_batch_of_a_caller_that_overtakes() -> None:
    queue = queue_of("flood", 50, 50, 50)
    queue.take(50)
    add(queue, "victim", 70)
    assert taken(queue, 150) == [("victim", 70), ("flood", 50)]


def test_callers_that_have_not_been_served_lead_in_the_order_in_which_they_came() -> None:
    queue = queue_of("flood", *[10] * 9)
    queue.take(10)
    for caller in "abc":
        add(queue, caller, 10)
    leaders = [taken(queue, 10)[0][0] for _ in range(5)]
    assert leaders[0] == "a"
    assert [leader for leader in leaders if leader != "flood"] == ["a", "b", "c"]


def test_a_caller_that_comes_back_at_once_overtakes_nobody() -> None:
    queue = queue_of("flood", *[10] * 9)
    queue.take(10)
    add(queue, "back", 10)
    assert taken(queue, 10) == [("back", 10)]
    add(queue, "back", 10)
    assert taken(queue, 10) == [("flood", 10)]
    assert taken(queue, 10) == [("back", 10)]


def test_new_callers_without_end_do_not_keep_one_waiting_that_has_been_served() -> None:
    queue = queue_of("mine", *[10] * 99)
    queue.take(10)
    leaders = []
    for number in range(12):
        add(queue, f"new {number}", 10)
        leaders.append(taken(queue, 10)[0][0])
    assert leaders.count("mine") >= 3


@given(
    arrivals=st.lists(st.lists(st.sampled_from("abcd"), max_size=4), min_size=30, max_size=60),
    priority=st.sampled_from(Priority),
)
@settings(max_examples=100, deadline=None)
def test_a_caller_that_always_waits_leads_again_after_at_most_two_batches_of_each_other(
    arrivals: list[list[str]], priority: Priority
) -> None:
    queue = queue_of("mine", *[10] * 1000, priority=priority)
    others_since = 0
    for arriving in arrivals:
        for caller in arriving:
            add(queue, caller, 10, priority=priority)
        leader = queue.take(10)[0].entry.caller
        others_since = 0 if leader == "mine" else others_since + 1
        assert others_since <= 2 * len("abcd")


def queue_of(caller: str, *costs: int, priority: Priority = Priority.INTERACTIVE) -> FairQueue[Entry]:
    queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
    add(queue, caller, *costs, priority=priority)
    return queue


def add(queue: FairQueue[Entry], caller: str, *costs: int, priority: Priority = Priority.INTERACTIVE) -> None:
    queue.add(Entry(costs=list(costs), caller=caller, priority=priority))


def taken(queue: FairQueue[Entry], budget: int) -> list[tuple[str, int]]:
    return [(part.entry.caller, part.cost) for part in queue.take(budget)]
