from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.queue.fair_queue import BULK_EVERY, MIN_PIECE_TOKENS, Entry, FairQueue, Part, Priority

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


def entry(*costs: int, caller: str = "a", priority: Priority = INTERACTIVE, in_pieces: bool = True) -> Entry:
    return Entry(costs=list(costs), caller=caller, priority=priority, in_pieces=in_pieces)


def queue_of(*entries: Entry) -> FairQueue[Entry]:
    queue: FairQueue[Entry] = FairQueue(lambda entry, index: entry.costs[index])
    for added in entries:
        queue.add(added)
    return queue


def take(queue: FairQueue[Entry], budget: int) -> list[tuple[Entry, int]]:
    return [(part.entry, part.index) for part in queue.take(budget)]


def callers(parts: Sequence[Part[Entry]]) -> str:
    return "".join(part.entry.caller for part in parts)


def test_a_caller_is_served_in_the_order_of_its_requests() -> None:
    first, second = entry(2, 2), entry(2)
    queue = queue_of(first, second)
    assert take(queue, 4) == [(first, 0), (first, 1)]
    assert take(queue, 4) == [(second, 0)]
    assert not queue


def test_sequences_of_a_request_stay_together_and_callers_take_turns() -> None:
    queue = queue_of(entry(1, 1), entry(1), entry(1, 1, caller="b"))
    assert callers(queue.take(10)) == "aabba"


def test_a_single_sequence_waits_for_no_more_than_a_batch_of_another_caller() -> None:
    many, single = entry(*[1] * 1000), entry(1, caller="b")
    queue = queue_of(many, *(entry(1) for _ in range(1000)), single)
    queue.take(10)
    assert queue.take(10)[0].entry is single


def test_what_does_not_fit_leads_the_next_batch() -> None:
    queue = queue_of(entry(3), entry(8, caller="b"), entry(1, caller="c"), entry(1))
    assert callers(queue.take(10)) == "a"
    assert callers(queue.take(10)) == "bca"


def test_a_piece_of_the_next_sequence_fills_a_batch_and_its_rest_leads_the_next_one() -> None:
    first, cut, last = entry(100), entry(200, 5, caller="b"), entry(100, caller="c")
    queue = queue_of(first, cut, last)
    assert [(part.entry, part.cost, part.remaining) for part in queue.take(250)] == [(first, 100, 0), (cut, 150, 50)]
    assert [(part.entry, part.cost, part.remaining) for part in queue.take(250)] == [
        (cut, 50, 0),
        (cut, 5, 0),
        (last, 100, 0),
    ]
    assert (queue.tokens, bool(queue)) == (0, False)


def test_no_piece_is_cut_for_little_room_nor_of_what_is_not_kept_nor_of_bulk_behind_interactive_work() -> None:
    for other in (entry(200, caller="b", in_pieces=False), entry(200, caller="b", priority=BULK)):
        assert callers(queue_of(entry(100), other).take(250)) == "a"
    assert callers(queue_of(entry(100), entry(200, caller="b")).take(100 + MIN_PIECE_TOKENS - 1)) == "a"
    assert callers(queue_of(entry(100), entry(200, caller="b")).take(100 + MIN_PIECE_TOKENS)) == "ab"


def test_a_caller_whose_pieces_fill_every_batch_keeps_nobody_waiting() -> None:
    many, single = entry(*[150] * 100), entry(100, caller="b")
    queue = queue_of(many, single)
    queue.take(250)
    assert queue.take(250)[0].entry is single


def test_interactive_leads_and_bulk_fills_what_is_left() -> None:
    bulk, interactive = entry(4, caller="b", priority=BULK), entry(4, caller="i")
    assert callers(queue_of(bulk, interactive).take(8)) == "ib"


def test_where_the_next_of_one_class_does_not_fit_the_other_may() -> None:
    queue = queue_of(entry(6, caller="i"), entry(6, caller="j"), entry(3, caller="b", priority=BULK))
    assert callers(queue.take(10)) == "ib"
    assert callers(queue.take(10)) == "j"


def test_while_both_wait_bulk_leads_one_batch_in_so_many() -> None:
    queue = queue_of(
        *(entry(1, caller="i") for _ in range(4 * BULK_EVERY)), *(entry(1, caller="b", priority=BULK) for _ in range(5))
    )
    leads = "".join(callers(queue.take(1)) for _ in range(4 * BULK_EVERY))
    assert leads == ("i" * (BULK_EVERY - 1) + "b") * 4


def test_a_sequence_over_the_budget_is_cut_and_others_get_in_between() -> None:
    long, short = entry(25, priority=BULK), entry(1)
    queue = queue_of(long)
    assert queue.take(10) == [Part(long, 0, cost=10, remaining=15)]
    queue.add(short)
    assert take(queue, 10) == [(short, 0)]
    assert queue.take(10) == [Part(long, 0, cost=10, remaining=5)]
    assert queue.take(10) == [Part(long, 0, cost=5, remaining=0)]
    assert (bool(queue), queue.tokens) == (False, 0)


def test_a_sequence_over_the_budget_goes_whole_and_alone_where_pieces_are_not_kept() -> None:
    long, short = entry(25, in_pieces=False), entry(1)
    queue = queue_of(long, short)
    assert queue.take(10) == [Part(long, 0, cost=25, remaining=0)]
    assert take(queue, 10) == [(short, 0)]


def test_a_cut_sequence_whose_piece_was_lost_is_taken_whole() -> None:
    long = entry(35)
    queue: FairQueue[Entry] = FairQueue(lambda *_: 35)
    queue.add(long)
    assert queue.take(10)[0].remaining == 25
    assert queue.take(10) == [Part(long, 0, cost=35, remaining=0)]
    assert (bool(queue), queue.tokens) == (False, 0)


def test_a_sequence_that_became_cheap_is_found_to_fit() -> None:
    first, same = entry(8), entry(8, 1)
    queue: FairQueue[Entry] = FairQueue(lambda *_: 1)
    queue.add(first)
    queue.add(same)
    assert take(queue, 10) == [(first, 0), (same, 0), (same, 1)]
    assert queue.tokens == 0


def test_a_sequence_behind_its_siblings_is_not_made_dearer() -> None:
    siblings = entry(8, 2, 2)
    queue: FairQueue[Entry] = FairQueue(lambda *_: 9)
    queue.add(siblings)
    assert take(queue, 11) == [(siblings, 0), (siblings, 1)]
    assert queue.tokens == 2


def test_discarding_gives_back_what_was_not_taken_and_twice_is_once() -> None:
    gone, stays = entry(4, 30), entry(2)
    queue = queue_of(gone, stays)
    queue.take(5)
    for _ in range(2):
        queue.discard(gone)
        assert queue.tokens == 2
    assert take(queue, 10) == [(stays, 0)]


@dataclass(slots=True, eq=False, kw_only=True)
class Held(Entry):
    """A request whose true costs shrink and grow as a prefix cache does."""

    truth: list[int]


class Queueing(RuleBasedStateMachine):
    """Adds, takes, discards and changes of the cached tokens in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Held] = FairQueue(lambda entry, index: entry.truth[index])
        self.waiting: list[Held] = []
        self.finished: dict[Held, list[int]] = {}

    @rule(
        costs=st.lists(st.integers(1, 40), min_size=1, max_size=5),
        caller=st.sampled_from("abc"),
        priority=st.sampled_from(Priority),
        in_pieces=st.booleans(),
    )
    def add(self, costs: list[int], caller: str, priority: Priority, in_pieces: bool) -> None:
        held = Held(costs=[*costs], caller=caller, priority=priority, in_pieces=in_pieces, truth=costs)
        self.queue.add(held)
        self.waiting.append(held)
        self.finished[held] = []

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), cost=st.integers(1, 40))
    def cache_changes(self, data: st.DataObject, cost: int) -> None:
        held = data.draw(st.sampled_from(self.waiting))
        held.truth[data.draw(st.integers(0, len(held.truth) - 1))] = cost

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.waiting))
        self.queue.discard(held)
        self.waiting.remove(held)

    @rule(budget=st.integers(1, 30))
    def take(self, budget: int) -> None:
        leaders = self.leaders()
        batch = self.queue.take(budget)
        assert bool(batch) == bool(self.waiting), "a batch leaves whenever something waits"
        assert len(batch) <= 1 or sum(part.cost for part in batch) <= budget
        assert not batch or batch[0].entry in leaders, "the oldest of a caller comes first"
        for part in batch:
            assert part.entry in self.waiting, "what was discarded does not come back"
            if not part.remaining:
                self.finished[part.entry].append(part.index)
        for held in [held for held in self.waiting if held.spent]:
            assert self.finished[held] == list(range(len(held.costs))), "each sequence is finished once, in order"
            self.waiting.remove(held)

    def leaders(self) -> list[Held]:
        oldest: dict[tuple[str, Priority], Held] = {}
        for held in self.waiting:
            oldest.setdefault((held.caller, held.priority), held)
        return list(oldest.values())

    @invariant()
    def tokens_are_counted_for_each_caller(self) -> None:
        for priority in Priority:
            line = self.queue._queues[priority]
            waiting = [held for entries in line._callers.values() for held in entries]
            assert +line.tokens == sum((Counter({held.caller: held.waiting}) for held in waiting), Counter())

    @invariant()
    def tokens_and_sequences_are_the_sum_of_what_waits(self) -> None:
        assert self.queue.tokens == sum(held.waiting for held in self.waiting)
        assert self.queue.sequences == sum(len(held.costs) - held.taken for held in self.waiting)
        assert bool(self.queue) == bool(self.waiting)

    def teardown(self) -> None:
        bound = sum(held.waiting for held in self.waiting) + sum(len(held.costs) for held in self.waiting)
        for _ in range(bound + 100):
            self.take(7)
        assert not self.waiting, "every sequence leaves in the end"


Queueing.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestQueueing = Queueing.TestCase


@given(
    crowd=st.lists(
        st.tuples(st.sampled_from("abcde"), st.lists(st.integers(1, 20), min_size=1, max_size=9)), max_size=30
    ),
    budget=st.integers(1, 20),
    priority=st.sampled_from(Priority),
)
@example(crowd=[("a", [1, 1]), ("b", [1]), ("c", [1])], budget=1, priority=INTERACTIVE)
@settings(max_examples=100, deadline=None)
def test_a_caller_leads_a_batch_after_at_most_one_of_each_other_caller(
    crowd: list[tuple[str, list[int]]], budget: int, priority: Priority
) -> None:
    queue = queue_of(*(entry(*costs, caller=caller, priority=priority) for caller, costs in crowd))
    mine = entry(1, caller="me", priority=priority)
    queue.add(mine)
    batches = 0
    while mine.taken == 0:
        queue.take(budget)
        batches += 1
    assert batches <= len({caller for caller, _ in crowd}) + 1


@given(counts=st.tuples(st.integers(0, 80), st.integers(0, 80)), budget=st.integers(1, 5), size=st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_neither_class_starves(counts: tuple[int, int], budget: int, size: int) -> None:
    entries = zip(counts, Priority, strict=True)
    queue = queue_of(*(entry(size, priority=priority) for count, priority in entries for _ in range(count)))
    passed = dict.fromkeys(Priority, 0)
    while queue:
        waits = {priority for priority, line in queue._queues.items() if line}
        served = {part.entry.priority for part in queue.take(budget)}
        passed = {each: passed[each] + 1 if each in waits - served else 0 for each in Priority}
        assert passed[INTERACTIVE] <= 1
        assert passed[BULK] < BULK_EVERY


def test_ahead_are_a_callers_own_and_as_many_of_every_others_and_all_that_is_interactive_before_bulk() -> None:
    queue = queue_of(entry(5, 5), entry(100, caller="b"), entry(2, caller="c"), entry(7, 7, caller="d", priority=BULK))
    assert queue.ahead(3, "a", INTERACTIVE) == 10 + 13 + 2
    assert queue.ahead(3, "stranger", INTERACTIVE) == 3 + 3 + 2
    assert queue.ahead(1000, "stranger", INTERACTIVE) == 112
    assert queue.ahead(3, "stranger", BULK) == 3 + 112
    assert queue_of().ahead(1000, "a", BULK) == 0
