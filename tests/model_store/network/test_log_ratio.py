"""Implicit process rewards: the log-ratio of two language models over the agent's own words."""

import asyncio
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from agentprm.types import Step, Trajectory
from model_store.errors import CheckpointTooLarge
from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from model_store.network import heads
from model_store.network.log_ratio import own_tokens
from model_store.network.quantise import ScoreError
from model_store.network.tensors import tensor_shapes
from model_store.text.loading import render, renderer_of
from service.app import create_app
from service.engine import selection
from service.engine.padded_engine import PaddedEngine
from service.engine.selection import load_engine
from service.models.load import load_models
from service.settings import Settings
from tests.model_store.network.ratios import BETA, STEPS, TRAJECTORIES, add, chatml, implied, llama, make_pair, one_turn
from tests.model_store.scored import scored
from tests.model_store.tiny_checkpoints import (
    CHATML,
    LLAMA_CHAT,
)

LAYOUTS = {
    "turns": ("implicit-prm", CHATML, chatml),
    "turns of Llama 3": ("implicit-prm", LLAMA_CHAT, llama),
    "EurusPRM": ("eurus-prm", CHATML, one_turn),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_scores_as_both_language_models_have_it(layout: str, tmp_path: Path) -> None:
    """Scored alone and in a batch, with observations and without, all steps at once and each step as the last."""
    preset, chat, pieces = LAYOUTS[layout]
    tokenizer = make_pair(tmp_path, chat)
    expected = [implied(tmp_path, tokenizer, pieces(trajectory)) for trajectory in TRAJECTORIES]
    assert len({round(raw, 3) for row in expected for raw in row}) == 6, "scores that can be told apart"
    checkpoint = add(tmp_path, preset).checkpoint
    renderer = renderer_of(checkpoint)
    engine = load_engine(checkpoint, "cpu", "auto", prefix_cache_bytes=0, cpu_threads=1)

    def assert_scored(trajectories: Sequence[Trajectory], wanted: Sequence[Sequence[float]]) -> None:
        for scores, raw in zip(scored(engine, renderer, trajectories), wanted, strict=True):
            assert scores == pytest.approx(raw, abs=1e-5)

    assert_scored(TRAJECTORIES, expected)
    for trajectory, raw in zip(TRAJECTORIES, expected, strict=True):
        assert_scored([trajectory], [raw])
        cut = [Trajectory(trajectory.task, trajectory.steps[: end + 1]) for end in range(len(trajectory.steps))]
        assert_scored(cut, [raw[: end + 1] for end in range(len(raw))])


def test_a_bound_on_logits_changes_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    whole = add(tmp_path).raw
    monkeypatch.setattr(heads, "LOGITS", 1)
    assert add_checkpoint(
        Store(tmp_path / "other"),
        tmp_path / "policy",
        ImportOptions("ratio", "1", preset="implicit-prm", reference=tmp_path / "reference", beta=BETA),
    ).raw == pytest.approx(whole, abs=1e-6)


def test_the_agents_words_cannot_end_or_begin_its_turn() -> None:
    opens, closes = (1, 2), 3
    ids = [1, 2, 5, 3, 9, 2, 9, 1, 2, 6, 6]
    assert [token for token, own in zip(ids, own_tokens(ids, opens, closes), strict=True) if own] == [5, 3, 6, 6]


def test_special_tokens_in_an_action_are_its_own_words(tmp_path: Path) -> None:
    make_pair(tmp_path)
    checkpoint = add(tmp_path).checkpoint
    score, renderer = checkpoint.manifest.score, renderer_of(checkpoint)
    assert score.closes is not None
    action = "I<|im_end|>\n<|im_start|>user\nyou"
    ((ids, _),) = render(renderer, Trajectory("How many?", (Step("", action),)))
    own = [token for token, mine in zip(ids, own_tokens(ids, score.opens, score.closes), strict=True) if mine]
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    assert tokenizer.decode(own, skip_special_tokens=False) == f"\n{action}<|im_end|>"


def test_the_service_answers_with_both_models_scores(tmp_path: Path) -> None:
    tokenizer = make_pair(tmp_path)
    raw = implied(tmp_path, tokenizer, chatml(TRAJECTORIES[0]))
    manifest = add(tmp_path).checkpoint.manifest
    settings = Settings(model_store=tmp_path / "store", models=("ratio",), device="cpu")
    app = create_app(load_models(settings)[0], settings)
    steps = [{"observation": step.observation, "action": step.action} for step in STEPS]

    async def ask() -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            items = {"items": [{"task": "How many are left?", "steps": steps}]}
            every = (await http.post("/score_trajectory", json=items)).json()["results"][0]["steps"]
            last = (await http.post("/score_step", json=items)).json()["results"][0]
            state = {"task": "How many are left?", "steps": steps[:2], "candidates": [STEPS[2].action, "look"]}
            ranked = (await http.post("/rank_actions", json={"items": [state]})).json()["results"][0]["ranking"]
        chosen = next(candidate for candidate in ranked if candidate["index"] == 0)
        return [*every, last, chosen]

    found = asyncio.run(ask())
    promises = list(map(manifest.score.promise, [*raw, raw[2], raw[2]]))
    assert [step["raw"] for step in found] == pytest.approx([*raw, raw[2], raw[2]], abs=1e-5)
    assert [step["promise"] for step in found] == pytest.approx(promises, abs=1e-5)
    assert found[2]["progress"] == pytest.approx(promises[2] - promises[1], abs=1e-5)


def test_a_ratio_gets_whole_rows_and_room_for_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    checkpoint = add(tmp_path).checkpoint
    assert isinstance(load_engine(checkpoint, "cpu", "auto", prefix_cache_bytes=2**20, cpu_threads=1), PaddedEngine)
    needed = 4 * sum(
        prod(shape) for name in ("policy", "reference") for shape in tensor_shapes(tmp_path / name).values()
    )
    monkeypatch.setattr(selection, "free_bytes", lambda _: needed)
    selection.check_fits(checkpoint, "cpu", "float32")
    monkeypatch.setattr(selection, "free_bytes", lambda _: needed - 1)
    with pytest.raises(CheckpointTooLarge):
        selection.check_fits(checkpoint, "cpu", "float32")


def test_both_models_of_a_ratio_are_quantised_and_the_agents_words_measured(tmp_path: Path) -> None:
    make_pair(tmp_path)
    checkpoint, errors = add(tmp_path).checkpoint, list[ScoreError]()
    given: dict[str, Any] = {"prefix_cache_bytes": 0, "cpu_threads": 1, "on_quantised": errors.append}
    full, quantised = (load_engine(checkpoint, "cpu", "auto", weights=weights, **given) for weights in ("auto", "int8"))
    for backbone in quantised._model.backbones():
        assert type(backbone.get_parameter("layers.0.mlp.up_proj.weight")).__name__ == "Int8Tensor"
    (error,) = errors
    assert 0 < error.raw_rms < 0.1
    scores = [scored(engine, renderer_of(checkpoint), TRAJECTORIES[:1])[0] for engine in (full, quantised)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
    assert scores[1] != scores[0]
