from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, decoders, models, pre_tokenizers, trainers

from agentprm.types import State, Step, Trajectory
from model_store.errors import CheckpointCorrupt, ManifestInvalid
from model_store.format.store import Checkpoint
from model_store.format.template import Template
from model_store.text.renderer import Renderer, load_renderer
from model_store.text.runs import Place
from training.data.tokenizer import TEMPLATE, build_tokenizer

CHATML = Template(
    begin="",
    task=("<|im_start|>system\n", "<|im_end|>\n"),
    observation=("<|im_start|>user\n", "<|im_end|>\n"),
    action=("<|im_start|>assistant\n", "<|im_end|>"),
)


def byte_level() -> Tokenizer:
    """A byte-level BPE with merges across words and punctuation, as the Qwen and Llama tokenizers have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["get 1 oak_log\n\nAction: craft the stick. > > 1 2 "] * 20, trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


RENDERERS = {
    "word level": Renderer(build_tokenizer(["get craft oak_log 1 2 Goal : . < > eoa"]), TEMPLATE),
    "byte-level BPE, chat template": Renderer(byte_level(), CHATML),
}


def action(renderer: Renderer, text: str) -> list[int]:
    """The tokens that an action adds if every segment is tokenised on its own."""
    return renderer.actions([text], renderer.state(State("")))[0]


text = st.one_of(st.text(), st.sampled_from(["get 1 oak_log", " x", "\n", "<eoa>", "<|im_end|>", "<|im_start|>user\n"]))
steps = st.lists(st.builds(Step, text, text), max_size=5).map(tuple)
renderers = pytest.mark.parametrize("renderer", RENDERERS.values(), ids=RENDERERS.keys())


@renderers
@given(task=text, steps=steps, cut=st.integers(0, 5))
def test_a_shorter_trajectory_is_a_token_prefix_of_a_longer_one(
    renderer: Renderer, task: str, steps: tuple[Step, ...], cut: int
) -> None:
    whole, part = renderer.trajectory(Trajectory(task, steps)), renderer.trajectory(Trajectory(task, steps[:cut]))
    assert whole.token_ids[: len(part.token_ids)] == part.token_ids
    assert whole.step_ends[: len(part.step_ends)] == part.step_ends


@renderers
@given(task=text, steps=steps, observation=text, action=text)
def test_state_and_action_join_to_the_trajectory(
    renderer: Renderer, task: str, steps: tuple[Step, ...], observation: str, action: str
) -> None:
    state = State(task, steps, observation)
    whole, before = renderer.trajectory(state.take(action)), renderer.state(state)
    assert before.token_ids + renderer.actions([action], before)[0] == whole.token_ids
    assert before.step_ends == whole.step_ends[:-1]


@renderers
@given(task=text, steps=steps)
def test_every_step_ends_in_the_same_boundary_token(renderer: Renderer, task: str, steps: tuple[Step, ...]) -> None:
    rendered = renderer.trajectory(Trajectory(task, steps))
    assert len(rendered.step_ends) == len(steps)
    assert {rendered.token_ids[end] for end in rendered.step_ends} <= {action(renderer, "")[-1]}


@renderers
@given(content=text)
def test_special_tokens_in_an_agents_text_are_ordinary_characters(renderer: Renderer, content: str) -> None:
    boundary = action(renderer, "")[-1]
    assert boundary not in action(renderer, content)[len(action(renderer, "")) - 1 : -1]


def test_the_demo_template_renders_as_written() -> None:
    tokenizer = build_tokenizer(["Goal: get stick. 1 left"])
    rendered = Renderer(tokenizer, TEMPLATE).trajectory(
        Trajectory("Goal: stick.", (Step("1 left", "get stick"), Step("", "unseen")))
    )
    assert [tokenizer.id_to_token(index) for index in rendered.token_ids] == [
        *["Goal", ":", "stick", ".", "<eot>"],
        *["1", "left", "<eoo>", "get", "stick", "<eoa>"],
        *["<eoo>", "<unk>", "<eoa>"],
    ]
    assert rendered.step_ends == [10, 13]


def test_a_boundary_without_tokens_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match="no tokens"):
        Renderer(build_tokenizer(["x"]), Template(begin="", task=("", ""), observation=("", ""), action=("", " ")))


def test_an_unreadable_tokenizer_is_one_sentence(published: Checkpoint) -> None:
    (published.path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointCorrupt, match=r"tokenizer\.json cannot be read"):
        load_renderer(published)


class Counted:
    """Counts the texts that reach the tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[Encoding]:
        self.texts += texts
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)


def counted() -> tuple[Renderer, Counted]:
    renderer = Renderer(build_tokenizer(["get craft oak_log 1 2"]), TEMPLATE)
    counting: Any = Counted(renderer._runs._tokenizers[Place.ALONE])
    renderer._runs._tokenizers[Place.ALONE] = counting
    return renderer, counting


def test_a_grown_trajectory_tokenises_only_what_is_new() -> None:
    renderer, counting = counted()
    first = renderer.trajectory(Trajectory("craft", (Step("1", "get oak_log"),)))
    grown = renderer.trajectory(Trajectory("craft", (Step("1", "get oak_log"), Step("2", "craft"))))
    assert grown.token_ids[: len(first.token_ids)] == first.token_ids
    assert counting.texts == ["craft", "1", "get oak_log", "2"]
    assert renderer.trajectory(Trajectory("craft", (Step("1", "get oak_log"),))) == first


@given(texts=st.lists(st.text("get 12", max_size=12), max_size=40))
def test_kept_segments_stay_within_their_bound_and_change_no_id(texts: list[str]) -> None:
    renderer, fresh = counted()[0], Renderer(build_tokenizer(["get craft oak_log 1 2"]), TEMPLATE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(renderer._runs._ids, "_most", 300)
        for text in texts:
            assert [action(renderer, said) for said in (text, "get", text)] == [
                action(fresh, said) for said in (text, "get", text)
            ]
            kept = renderer._runs._ids
            assert kept.size == sum(len(run.text) + 64 for run in kept._values) <= 300


def test_an_embedding_without_a_row_for_a_token_that_text_can_become_is_refused() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["plainly"])
    tokenizer.add_special_tokens(["<never in a text>"])
    last = tokenizer.get_vocab()["plainly"]
    renderer = Renderer(tokenizer, TEMPLATE)
    renderer.refuse_too_few_rows(last + 1)
    with pytest.raises(CheckpointCorrupt, match=f"has a token {last} and the embedding only {last} rows"):
        renderer.refuse_too_few_rows(last)
