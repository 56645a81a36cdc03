"""Actions that end in their own text, and padding at the end of an action."""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.types import State, Step, Trajectory
from model_store.format.template import Template
from model_store.text.renderer import Renderer
from model_store.text.runs import Unrenderable
from tests.model_store.text.test_runs import any_text
from tests.model_store.tiny_checkpoints import byte_level, sentence_piece, whole
from training.data.tokenizer import build_tokenizer

TOKENIZERS = {"byte level": byte_level(["<s>", "</s>"]), "sentence piece": sentence_piece("first")}
WORDS = build_tokenizer(["get craft x"])
"""A tokenizer that has no token for white space."""
said = st.builds("x{}x".format, any_text)
steps = st.lists(st.builds(Step, any_text, said), min_size=1, max_size=4).map(tuple)
Tokenise = Literal["segments", "steps", "text"]


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]


def plain(end: str = "", tokenise: Tokenise = "text") -> Template:
    return Template("<s>", ("", "\n"), ("", "\n"), ("", end), "\n", tokenise, True)


def assert_stable(renderer: Renderer, task: str, steps: tuple[Step, ...]) -> None:
    whole = renderer.trajectory(Trajectory(task, steps))
    for end in range(1, len(steps) + 1):
        part = renderer.trajectory(Trajectory(task, steps[:end]))
        assert whole.token_ids[: len(part.token_ids)] == part.token_ids
        assert whole.step_ends[:end] == part.step_ends
        assert part.step_ends[-1] == len(part.token_ids) - 1
        before = renderer.state(State(task, steps[: end - 1], steps[end - 1].observation))
        assert before.token_ids + renderer.actions([steps[end - 1].action], before)[0] == part.token_ids
        assert before.step_ends == part.step_ends[:-1]


@pytest.mark.parametrize("tokenise", ["segments", "steps", "text"])
@settings(deadline=None)
@given(task=any_text, steps=steps)
def test_steps_that_end_in_their_own_text_are_prefixes_and_candidates_continue_their_state(
    tokenizer: Any, tokenise: Tokenise, task: str, steps: tuple[Step, ...]
) -> None:
    assert_stable(Renderer(tokenizer, plain("", tokenise)), task, steps)


@settings(deadline=None)
@given(task=any_text, steps=steps)
def test_no_step_is_read_at_padding_and_all_else_stays(tokenizer: Any, task: str, steps: tuple[Step, ...]) -> None:
    (pad,) = whole(tokenizer, "</s>")
    trajectory = Trajectory(task, steps)
    usual = Renderer(tokenizer, plain("</s></s>")).trajectory(trajectory)
    renderer = Renderer(tokenizer, plain("</s></s>"), pad)
    rendered = renderer.trajectory(trajectory)
    assert [end + 2 for end in rendered.step_ends] == usual.step_ends
    assert rendered.token_ids == usual.token_ids[:-2]
    assert_stable(renderer, task, steps)


def test_padding_that_an_agent_can_write_is_not_read_either(tokenizer: Any) -> None:
    pad = whole(tokenizer, "x!")[-1]
    renderer = Renderer(tokenizer, plain(), pad)
    shouted = renderer.trajectory(Trajectory("t", (Step("", "x!!"), Step("", "x!"))))
    assert pad not in [shouted.token_ids[end] for end in shouted.step_ends]
    before = renderer.state(State("t"))
    assert renderer.actions(["x!!"], before) == renderer.actions(["x"], before)
    for action in ("!", "!!!", ""):
        with pytest.raises(Unrenderable, match="an action is empty"):
            renderer.actions([action], before)


@pytest.mark.parametrize("action", ["", " ", "\n\t"])
@pytest.mark.parametrize("pad", [None, 3])
def test_an_action_without_a_token_is_refused(action: str, pad: int | None) -> None:
    renderer = Renderer(WORDS, plain(tokenise="segments"), pad)
    for trajectory in (Trajectory("x", (Step("get", action),)), Trajectory("x", (Step("", action), Step("", "x")))):
        with pytest.raises(Unrenderable, match="an action is empty"):
            renderer.trajectory(trajectory)
    with pytest.raises(Unrenderable, match="an action is empty"):
        renderer.actions(["x", action], renderer.state(State("x")))


def test_whitespace_alone_is_an_action_where_it_has_a_token(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer, plain())
    before = renderer.state(State("x"))
    assert len(renderer.actions([" "], before)[0]) > 0


def test_an_empty_step_that_only_white_space_would_end_is_refused() -> None:
    template = Template("", ("", " "), ("", "\n"), ("", " \n\n\n"), "", "text", True, True)
    renderer = Renderer(TOKENIZERS["byte level"], template)
    with pytest.raises(Unrenderable, match="an action is empty"):
        renderer.trajectory(Trajectory("x", (Step("", " \n"),)))
    assert renderer.trajectory(Trajectory("x", (Step("", "x \n"),))) == renderer.trajectory(
        Trajectory("x", (Step("", "x"),))
    )


@pytest.mark.parametrize(("ends", "kept"), [("both", "a b"), ("start", "a b \n"), ("none", " a b \n")])
def test_a_template_says_where_a_task_is_stripped(ends: Any, kept: str) -> None:
    tokenizer = TOKENIZERS["byte level"]
    template = Template("<s>", ("", "</s>"), ("", "\n"), ("", "</s>"), "", "text", True, True, ends)
    said = Trajectory(" a b \n", (Step("", " x "),))
    assert template.whole_text(said) == f"<s>{kept}</s>x</s>"
    assert Renderer(tokenizer, template).trajectory(said).token_ids == whole(tokenizer, f"<s>{kept}</s>x</s>")
