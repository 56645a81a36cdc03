"""Scores of many families by the engine that is selected for them, against plain forwards of transformers.

The truth at a token is a forward of the sequence that ends there, one at a time, so that nothing later is known to it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import pytest
import torch
from transformers import GPT2Config

from model_store.network.model import RewardModel
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import choose_engine
from tests.service.engine.backbones import BACKBONES, CONTEXT_LENGTH, SHARING, backbone
from tests.service.engine.sharp_models import sharp_model

ROOT = Path(__file__).parents[3]

STEPS: Final = [7, 22, 23, 24, 25, 40, 47, 48, 63, 70, 71, 72, 80, CONTEXT_LENGTH - 1]
"""Read positions on both sides of every threshold of the configurations."""
ALWAYS_TESTED: Final = {"Qwen2", "Llama, longrope", "Llama 4, a chunk beyond the probe", "Gemma 3", "gpt-oss", "Mamba"}


def _sequences() -> list[list[int]]:
    """A history, one that shares its beginning, a part of it and two others."""
    random = Random(0)
    history, other, unrelated = ([random.randrange(50) for _ in range(CONTEXT_LENGTH)] for _ in range(3))
    return [history, history[:41] + other[:50], history[:26], unrelated[:8], unrelated[20:93]]


def _reads(sequence: Sequence[int]) -> list[int]:
    return [step for step in STEPS if step < len(sequence)]


@torch.inference_mode()
def _true_scores(model: RewardModel, sequence: list[int], reads: Sequence[int]) -> list[float]:
    return [float(model(torch.tensor([sequence[: step + 1]]))[0, -1]) for step in reads]


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS_TESTED else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_every_step_has_the_score_of_a_plain_forward_that_ends_there(name: str) -> None:
    model = backbone(name)
    sequences = _sequences()
    expected = [_true_scores(model, sequence, _reads(sequence)) for sequence in sequences]
    engine = choose_engine(model, prefix_cache_bytes=10**9, context_length=CONTEXT_LENGTH)
    assert isinstance(engine, PrefixEngine if name in SHARING else PaddedEngine)
    deviation = torch.tensor(expected[0]).std()
    for batch in ([0], [1], [2, 3], range(len(sequences)), [4]):
        chosen = [sequences[number] for number in batch]
        for number, scores in zip(batch, engine.score(chosen, list(map(_reads, chosen))), strict=True):
            assert scores.raw == pytest.approx(expected[number], abs=1e-5 * float(deviation))


def test_a_model_of_few_tokens_and_positions_is_served() -> None:
    model = sharp_model(GPT2Config, vocab_size=3, n_positions=4)
    expected = _true_scores(model, [2, 0, 1, 1], range(4))
    engine = choose_engine(model, prefix_cache_bytes=10**9, context_length=4)
    assert isinstance(engine, PrefixEngine)
    assert engine.score([[2, 0, 1, 1]], [range(4)])[0].raw == pytest.approx(expected, abs=1e-5)


def test_the_docs_say_which_backbones_share_prefixes() -> None:
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| shares prefixes \| (.*) \|$", page, re.MULTILINE)
    families = {name.split(",")[0] for name in SHARING}
    assert families == {name.split(" with")[0] for name in re.split(", (?!`)", row)}
