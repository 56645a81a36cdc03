from collections.abc import Sequence

from agentprm.search.choosers import BestPromise, majority
from agentprm.types import State


def longer_is_better(states: Sequence[State], actions: Sequence[Sequence[str]]) -> list[list[float]]:
    return [[len(action) / 100 for action in proposed] for _, proposed in zip(states, actions, strict=True)]


def test_majority_takes_the_most_proposed_and_first_proposed_of_equals() -> None:
    assert majority([State("")] * 2, [["a", "b", "b"], ["c", "d", "d", "c"]]) == ["b", "c"]


def test_the_best_promise_is_taken_whatever_its_count() -> None:
    proposed = [["aa", "aa", "aaa", "a"]]
    assert BestPromise(longer_is_better)([State("")], proposed) == ["aaa"]


def test_the_count_weight_gives_the_policy_a_say() -> None:
    proposed = [["aa", "aa", "aaa", "a"]]
    assert BestPromise(longer_is_better, count_weight=0.05)([State("")], proposed) == ["aa"]
