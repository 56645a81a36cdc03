"""The noisy bot: it can solve every level, errs as often as it should, and never hangs."""

import random

import pytest

from training.environments.babyai.environment import BabyAI
from training.environments.babyai.goals import LEVELS, Goal, train_goals
from training.environments.babyai.policy import NoisyBot, systematic_mistake
from training.rollouts.collect import collect, roll_out


def test_without_noise_and_with_time_every_level_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    for level in list(LEVELS):
        monkeypatch.setitem(LEVELS, level, 30)
        assert roll_out(BabyAI(Goal(level, 1), 0), NoisyBot(eps=0), random.Random(0)).outcome == 1, level


def test_success_is_between_a_quarter_and_two_fifths() -> None:
    rollouts = list(collect(train_goals(), BabyAI, NoisyBot(), count=120, seed=0))
    assert 0.25 < sum(rollout.outcome or 0 for rollout in rollouts) / len(rollouts) < 0.4


def test_a_systematic_mistake_is_not_the_advice_and_comes_again() -> None:
    for level in LEVELS:
        env = BabyAI(Goal(level, 2), 0)
        mistake = systematic_mistake(env, env.advice)
        assert mistake not in (env.advice, "")
        assert systematic_mistake(env.copy(), env.advice) == mistake


@pytest.mark.parametrize(("level", "layout"), [("UnlockToUnlock", 4), ("KeyInBox", 0)])
def test_an_episode_ends_where_the_bot_fails(level: str, layout: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LEVELS, level, 25)
    env = BabyAI(Goal(level, layout), 0)
    advised = []
    rng = random.Random(0)
    while not env.terminated:
        advised.append(env.advice is not None)
        env.step(NoisyBot(eps=0).sample(env, rng))
    assert not all(advised)
