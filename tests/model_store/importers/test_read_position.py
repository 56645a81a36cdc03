"""Where transformers' sequence classifiers read, with padding and without a text after the action."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, Qwen2Config

from agentprm.types import Step, Trajectory
from model_store.format.store import Checkpoint, Store
from model_store.network.model import load_model, score_rows
from model_store.text.renderer import load_renderer
from tests.model_store.authors import make_classifier
from tests.model_store.importers.importing import add, write_recipe
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, edit_config, whole

SCORE = {"head": "linear", "activation": "sigmoid"}
RAW_TEXT: dict[str, Any] = {
    "begin": "",
    "task": ["", "\n"],
    "observation": ["", "\n"],
    "action": ["", ""],
    "next": "\n",
}
RAW_TEXT |= {"tokenise": "text", "skip_empty_observation": True}
SAID = Trajectory("She eats", (Step("", "16 - 3"), Step("left", "13 eggs"), Step("", "per day!!"), Step("", "so 13.")))


def raw_scores(checkpoint: Checkpoint, said: Trajectory) -> list[float]:
    rendered = load_renderer(checkpoint).trajectory(said)
    (raw,) = score_rows(load_model(checkpoint, "cpu", "auto"), [rendered.token_ids], [rendered.step_ends])
    return raw


@torch.inference_mode()
def by_transformers(path: Path, ids: list[list[int]]) -> list[float]:
    model: Any = AutoModelForSequenceClassification.from_pretrained(path).eval()
    return [model(torch.tensor([row])).logits[0, 0].item() for row in ids]


@pytest.mark.parametrize("padding", ["", "<|endoftext|>", "!", "!!"])
def test_a_classifier_of_raw_text_reads_the_last_token_that_is_no_padding(
    store: Store, tmp_path: Path, padding: str
) -> None:
    source = tmp_path / "source"
    tokenizer = make_classifier(source, Qwen2Config, CHATML_TOKENS, CHATML)
    pad = whole(tokenizer, f"day{padding}")[-1] if padding else None
    edit_config(source, pad_token_id=pad)
    recipe = write_recipe(tmp_path / "raw.json", SCORE, RAW_TEXT)
    checkpoint = add(store, source, recipe=recipe).checkpoint
    assert checkpoint.manifest.score.pad_token_id == (pad if padding.startswith("!") else None)
    template = checkpoint.manifest.texts
    texts = [template.whole_text(Trajectory(SAID.task, SAID.steps[: end + 1])) for end in range(len(SAID.steps))]
    expected = by_transformers(source, [whole(tokenizer, text) for text in texts])
    assert raw_scores(checkpoint, SAID) == pytest.approx(expected, abs=1e-5)


def test_padding_that_no_chat_can_hold_is_not_kept(store: Store, tmp_path: Path) -> None:
    for padding, kept in (("<|endoftext|>", False), ("<|im_end|>", True), ("\n", True)):
        source = tmp_path / padding.strip("<|>\n")
        tokenizer = make_classifier(source, Qwen2Config, CHATML_TOKENS, CHATML)
        edit_config(source, pad_token_id=whole(tokenizer, padding)[-1])
        imported = add(Store(tmp_path / f"store{kept}{padding.strip()}"), source)
        assert (imported.checkpoint.manifest.score.pad_token_id is not None) is kept
        assert any("padding to this classifier" in note for note in imported.notes) is kept


def test_a_recipe_may_name_the_padding_itself(store: Store, tmp_path: Path, classifier: Path) -> None:
    recipe = write_recipe(tmp_path / "mine.json", SCORE | {"pad_token_id": 7}, RAW_TEXT)
    edit_config(classifier, pad_token_id=0)
    assert add(store, classifier, recipe=recipe).checkpoint.manifest.score.pad_token_id == 7


@pytest.mark.parametrize("pad", [None, -1])
def test_what_is_no_token_is_no_padding(store: Store, classifier: Path, tmp_path: Path, pad: Any) -> None:
    recipe = write_recipe(tmp_path / "raw.json", SCORE, RAW_TEXT)
    edit_config(classifier, pad_token_id=pad)
    assert add(store, classifier, recipe=recipe).checkpoint.manifest.score.pad_token_id is None
