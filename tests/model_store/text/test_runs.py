"""Runs: a text tokenised in pieces has the tokens of the whole text."""

from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from agentprm.types import State, Step, Trajectory
from model_store.errors import ManifestInvalid
from model_store.format.template import Template
from model_store.text.renderer import Renderer
from tests.model_store.tiny_checkpoints import byte_level, sentence_piece, whole

TURNS = Template(
    begin="<s>",
    task=("</s>user\n", "</s>"),
    observation=("</s>user\n", "</s>"),
    action=("<s> bot ", " ки"),
    next="</s>\n",
    tokenise="text",
    skip_empty_observation=True,
)
TAGS = Template(
    begin="<s>",
    task=("", " "),
    observation=("", "\n"),
    action=("", " ки"),
    next="\n",
    tokenise="text",
    skip_empty_observation=True,
)
HEADINGS = Template(
    begin="",
    task=("### Task:\n", "\n\n### Response:\n"),
    observation=("", "\n"),
    action=("", " ки"),
    next="\n\n",
    tokenise="text",
)
TOKENIZERS = {
    "byte level": byte_level(["<s>", "</s>"]),
    "prepended everywhere": sentence_piece("normalizer"),
    "prepended first": sentence_piece("first"),
    "prepended always": sentence_piece("always"),
    "never prepended": sentence_piece("never"),
}
words = st.sampled_from(["Step 1:", "eggs", "16 - 3", " ", "\n", "+", "é", "漢", "  ", ".", "ducks per day", "x"])
text = st.lists(words, max_size=6).map("".join)
ends = st.sampled_from(["eggs", "x", "1:"])
"""What stands before and after a cut that no special token makes: a letter, as nearly all text has there."""
segments = st.builds("{}{}{}".format, ends, text, ends)
tasks = st.builds("{}{}".format, segments, st.sampled_from(["", ".", "?", "...", "\n", "漢", " "]))
"""Nothing is cut there but behind a token."""
steps = st.lists(st.builds(Step, st.one_of(st.just(""), segments), segments), min_size=1, max_size=4).map(tuple)


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


@pytest.mark.parametrize("template", [TURNS, TAGS, HEADINGS], ids=["turns", "tags", "headings"])
@settings(deadline=None)
@given(task=tasks, steps=steps)
def test_a_text_in_runs_has_the_tokens_of_the_whole_text(
    tokenizer: Tokenizer, template: Template, task: str, steps: tuple[Step, ...]
) -> None:
    trajectory = Trajectory(task, steps)
    rendered = Renderer(tokenizer, template).trajectory(trajectory)
    assert rendered.token_ids == whole(tokenizer, template.whole_text(trajectory))


any_text = st.one_of(st.text(max_size=8), text, st.sampled_from(["<s>", "</s>user\n", " ки", "\n\n"]))
any_steps = st.lists(st.builds(Step, any_text, any_text), min_size=1, max_size=4).map(tuple)
TOKENISED: list[Literal["segments", "steps", "text"]] = ["segments", "steps", "text"]


@pytest.mark.parametrize("tokenise", TOKENISED)
@settings(deadline=None)
@given(said=st.builds(Trajectory, any_text, any_steps), cut=st.integers(1, 4), lenient=st.booleans())
def test_whatever_was_said_steps_are_prefixes_and_candidates_continue_their_state(
    tokenizer: Tokenizer, tokenise: Any, said: Trajectory, cut: int, lenient: bool
) -> None:
    template = Template("<s>", ("", " "), ("a", "\n"), ("", " ки"), "</s>\n", tokenise, lenient, lenient)
    renderer, task, steps = Renderer(tokenizer, template), said.task, said.steps
    rendered, part = renderer.trajectory(said), renderer.trajectory(Trajectory(task, steps[:cut]))
    assert rendered.token_ids[: len(part.token_ids)] == part.token_ids
    assert rendered.step_ends[: len(part.step_ends)] == part.step_ends
    assert rendered.task_len == part.task_len <= rendered.step_ends[0]
    before = renderer.state(State(task, steps[:-1], steps[-1].observation))
    assert before.token_ids + renderer.actions([steps[-1].action], before)[0] == rendered.token_ids
    assert (before.task_len, before.step_ends) == (rendered.task_len, rendered.step_ends[:-1])


def test_special_tokens_in_an_agents_text_are_ordinary_characters_in_a_whole_text_too(tokenizer: Tokenizer) -> None:
    (special,) = whole(tokenizer, "</s>")
    rendered = Renderer(tokenizer, TURNS).trajectory(Trajectory("</s>", (Step("</s>user\n", "x</s>"),)))
    quiet = Renderer(tokenizer, TURNS).trajectory(Trajectory("q", (Step("q", "x"),)))
    assert rendered.token_ids.count(special) == quiet.token_ids.count(special)


def test_the_tokens_of_a_task_are_known_whatever_follows_it(tokenizer: Tokenizer) -> None:
    for task in ("eggs", "16 - 3", "x y "):
        rendered = Renderer(tokenizer, TAGS).trajectory(Trajectory(task, (Step("", "eggs"),)))
        assert rendered.token_ids[: rendered.task_len] == whole(tokenizer, "<s>" + task)


def test_an_empty_observation_leaves_no_trace_where_the_template_says_so(tokenizer: Tokenizer) -> None:
    rendered = Renderer(tokenizer, TURNS).trajectory(Trajectory("eggs", (Step("", "x"), Step("", "eggs"))))
    assert rendered.token_ids == whole(tokenizer, "<s></s>user\neggs</s><s> bot x ки</s>\n<s> bot eggs ки")


def test_whitespace_around_segments_is_cut_off_where_the_template_says_so(tokenizer: Tokenizer) -> None:
    stripping = Template(TURNS.begin, TURNS.task, TURNS.observation, TURNS.action, TURNS.next, "text", True, True)
    padded = Trajectory("\neggs ", (Step(" \n", " x\n"),))
    plain = Renderer(tokenizer, TURNS).trajectory(Trajectory("eggs", (Step("", "x"),)))
    assert Renderer(tokenizer, stripping).trajectory(padded) == plain
    assert stripping.whole_text(padded) == TURNS.whole_text(Trajectory("eggs", (Step("", "x"),)))


def test_steps_are_tokenised_on_their_own_and_the_task_with_the_text_after_it() -> None:
    tokenizer = byte_level(["<s>"])
    tokenizer.add_tokens([" .\n", ".x"])  # would be found if neighbours were joined
    template = Template("<s>", ("", "\n"), ("", ""), ("", "x"), tokenise="steps")
    ids = Renderer(tokenizer, template).trajectory(Trajectory("why .", (Step("", "eggs."),))).token_ids
    assert ids == [*whole(tokenizer, "<s>why .\n"), *whole(tokenizer, "eggs."), *whole(tokenizer, "x")]


def test_a_special_token_that_takes_whitespace_away_is_refused_in_a_template() -> None:
    tokenizer = byte_level(["<s>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    with pytest.raises(ManifestInvalid, match="<mask> takes whitespace beside it away"):
        Renderer(tokenizer, Template("<s>", ("", ""), ("", ""), ("", "<mask>"), tokenise="text"))


def test_tokens_of_unknown_text_are_counted_where_a_tokenizer_has_one(tokenizer: Tokenizer) -> None:
    """Byte tokens stand for what the vocabulary lacks, so the five tokenizers know every text."""
    renderer = Renderer(tokenizer, TURNS)
    assert renderer.count_unknown(renderer.trajectory(Trajectory("漢", (Step("", "☃"),))).token_ids) == 0


def test_a_unigram_tokenizer_names_its_unknown_token_by_its_id() -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("egg", -1.0), ("</s>", -1.0)], unk_id=0))
    renderer = Renderer(tokenizer, Template("", ("", ""), ("", ""), ("", "</s>")))
    token_ids = renderer.trajectory(Trajectory("egg", (Step("ham", "egg"),))).token_ids
    assert renderer.count_unknown(token_ids) == token_ids.count(0) > 0
