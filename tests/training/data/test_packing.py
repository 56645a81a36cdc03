"""Updates and forwards: every trajectory once an epoch, whole, within the budget."""

from hypothesis import given
from hypothesis import strategies as st

from agentprm.types import Trajectory
from model_store.text.chat_renderer import ReadTokens
from training.data.encoding import Encoded
from training.data.packing import cost, pack, updates
from training.rollouts.rollout import Rollout

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=40)


def encoded(length: int) -> Encoded:
    rollout = Rollout(Trajectory(""), 1.0, truncated=False, query="")
    return Encoded(str(length), (ReadTokens([0] * length, [length - 1]),), rollout)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 3))
def test_every_trajectory_comes_once_an_epoch_in_updates_of_the_budget(
    lengths: list[int], tokens: int, seed: int
) -> None:
    epochs = updates(lengths, tokens, 2, seed)
    for epoch in epochs:
        assert sorted(index for update in epoch for index in update) == list(range(len(lengths)))
        assert all(sum(lengths[index] for index in update[:-1]) < tokens for update in epoch)
    assert epochs == updates(lengths, tokens, 2, seed)


@given(LENGTHS, st.integers(1, 200), st.booleans())
def test_forwards_hold_every_trajectory_within_the_budget_or_alone(
    lengths: list[int], tokens: int, padded: bool
) -> None:
    packs = pack([encoded(length) for length in lengths], tokens, padded=padded)
    assert sorted(example.tokens for one in packs for example in one) == sorted(lengths)
    assert all(len(one) == 1 or cost(one, padded=padded) <= tokens for one in packs)


def test_packed_forwards_are_nearly_full() -> None:
    packs = pack([encoded(length) for length in [70, 60, 50, 40, 30, 20, 10] * 6], 100)
    assert cost([example for one in packs for example in one], padded=False) >= 0.95 * 100 * len(packs)


def test_another_seed_gives_another_order() -> None:
    assert updates([5] * 20, 20, 1, 0) != updates([5] * 20, 20, 1, 1)
