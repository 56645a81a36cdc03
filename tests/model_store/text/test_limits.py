"""A limit of tokens: what is within it has the tokens of the whole, what is not costs little more than the limit."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.types import State, Step, Trajectory
from model_store.format.template import Template
from model_store.text import runs
from model_store.text.renderer import Renderer
from model_store.text.runs import PIECE_CHARS, TooManyTokens
from tests.model_store.text.test_renderer import RENDERERS as OF_SEGMENTS
from tests.model_store.text.test_renderer import counted
from tests.model_store.text.test_runs import HEADINGS, TAGS, TOKENIZERS, TURNS, any_steps, any_text

STEPWISE = Template("<s>", ("", " "), ("a", "\n"), ("", " ки"), "</s>\n", "steps", strip=True)
TEMPLATES = {"turns": TURNS, "tags": TAGS, "headings": HEADINGS, "steps": STEPWISE}


def renderers() -> dict[str, Renderer]:
    """New renderers: they know no text yet."""
    return OF_SEGMENTS | {
        f"{tokenizer}, {template}": Renderer(TOKENIZERS[tokenizer], TEMPLATES[template])
        for tokenizer in TOKENIZERS
        for template in TEMPLATES
    }


UNLIMITED, LIMITED = renderers(), renderers()


@pytest.fixture(scope="module", autouse=True)
def short_pieces() -> Iterator[None]:
    """Makes a piece of nearly every run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "PIECE_CHARS", 70)
        yield


@pytest.mark.parametrize("name", UNLIMITED)
@settings(max_examples=50, deadline=None)
@given(said=st.builds(Trajectory, any_text, any_steps), off=st.integers(-3, 3))
def test_a_trajectory_has_all_its_tokens_or_too_many(name: str, said: Trajectory, off: int) -> None:
    whole = UNLIMITED[name].trajectory(said)
    limit = len(whole.token_ids) + off
    if off >= 0:
        assert LIMITED[name].trajectory(said, limit) == whole
    else:
        with pytest.raises(TooManyTokens) as stopped:
            LIMITED[name].trajectory(said, limit)
        assert limit < stopped.value.tokens <= len(whole.token_ids)


@pytest.mark.parametrize("name", UNLIMITED)
@settings(max_examples=50, deadline=None)
@given(state=st.builds(State, any_text, any_steps, any_text), action=any_text, off=st.integers(-2, 2))
def test_a_state_and_its_action_have_all_their_tokens_or_too_many(
    name: str, state: State, action: str, off: int
) -> None:
    before = UNLIMITED[name].state(state)
    own = UNLIMITED[name].actions([action], before)
    if off >= 0:
        assert LIMITED[name].state(state, len(before.token_ids) + off) == before
        assert LIMITED[name].actions([action], before, len(own[0]) + off) == own
    else:
        with pytest.raises(TooManyTokens):
            LIMITED[name].state(state, len(before.token_ids) + off)
        with pytest.raises(TooManyTokens):
            LIMITED[name].actions([action], before, len(own[0]) + off)


def test_nothing_is_tokenised_after_the_piece_that_passes_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PIECE_CHARS", PIECE_CHARS)
    renderer, counting = counted()
    steps = tuple(Step(f"{index} 1 2", "get oak_log " * 50) for index in range(500))
    with pytest.raises(TooManyTokens):
        renderer.trajectory(Trajectory("craft", steps), 600)
    assert sum(map(len, counting.texts)) <= PIECE_CHARS + len(steps[0].action)


def test_the_end_of_a_long_run_is_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PIECE_CHARS", PIECE_CHARS)
    renderer, counting = counted()
    with pytest.raises(TooManyTokens) as stopped:
        renderer.trajectory(Trajectory("craft 1 " * 100_000, (Step("", "get"),)), 600)
    assert sum(map(len, counting.texts)) == PIECE_CHARS
    assert stopped.value.tokens > 600


parts = st.one_of(st.text(min_size=1, max_size=6), st.sampled_from(["eggs", " Step 1:", "ducks per day ", "\n", "  "]))


@pytest.mark.parametrize("name", UNLIMITED)
@settings(max_examples=30, deadline=None)
@given(repeated=st.lists(st.tuples(parts, st.integers(1, 400)), min_size=1, max_size=4))
def test_a_long_run_within_the_limit_is_not_refused_by_its_beginning(
    name: str, repeated: list[tuple[str, int]]
) -> None:
    said = Trajectory("".join(part * times for part, times in repeated), (Step("", "x"),))
    whole = UNLIMITED[name].trajectory(said)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "BEGINNING_CHARS", 0)  # the beginning has only the 70 characters of a piece
        patched.setattr(runs, "CUT_TOKENS", 8)
        assert LIMITED[name].trajectory(said, len(whole.token_ids)) == whole


def test_a_trajectory_with_more_steps_than_tokens_is_not_tokenised_at_all() -> None:
    renderer, counting = counted()
    with pytest.raises(TooManyTokens):
        renderer.trajectory(Trajectory("craft", (Step("", "get"),) * 601), 600)
    assert counting.texts == []


def test_a_run_with_too_many_tokens_is_not_kept() -> None:
    renderer: Any = counted()[0]
    with pytest.raises(TooManyTokens):
        renderer.trajectory(Trajectory("craft " * 601, (Step("", "get"),)), 600)
    assert renderer._runs._ids.size == 0
