"""Implicit process rewards: what two language models say about the agent's own words."""

import asyncio
import json
from collections.abc import Sequence
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, Qwen2Config

from agentprm.types import Step, Trajectory
from model_store.__main__ import main
from model_store.errors import CheckpointCorrupt, CheckpointError, CheckpointTooLarge, ManifestInvalid
from model_store.format.store import Checkpoint, Store
from model_store.importers.importer import Imported, Wanted, add_checkpoint
from model_store.network import heads
from model_store.network.log_ratio import own_tokens
from model_store.network.model import load_model
from model_store.network.quantise import ScoreError
from model_store.network.tensors import tensor_shapes
from model_store.text.renderer import load_renderer
from service.app import create_app
from service.engine import selection
from service.engine.padded_engine import PaddedEngine
from service.engine.selection import load_engine
from service.models.load import load_models
from service.settings import Settings
from tests.model_store.authors import make_language_model
from tests.model_store.tiny_checkpoints import (
    CHATML,
    CHATML_TOKENS,
    LLAMA_CHAT,
    LLAMA_TOKENS,
    byte_level,
    edit_config,
    logits,
    weights_of,
)

BETA = 0.05
STEPS = (
    Step("", "Step 1: She eats three."),
    Step("There are 13 eggs.", "\nStep 2: 16 - 3 = 13\neggs"),
    Step("", "наверно 13"),
)
TRAJECTORIES = [
    Trajectory("How many are left?", STEPS),
    Trajectory("How many eggs?", STEPS[1:2]),
    Trajectory("How many eggs are left per day?", (Step("", "13."), Step("So?", "She has 13 eggs left.\n"))),
]


def make_pair(tmp_path: Path, chat: str = CHATML) -> Tokenizer:
    kind, special = (Qwen2Config, CHATML_TOKENS) if chat == CHATML else (LlamaConfig, LLAMA_TOKENS)
    for name in ("policy", "reference"):
        tokenizer = make_language_model(tmp_path / name, kind, byte_level(special), bos=special[0], chat=chat)
    noise = torch.Generator().manual_seed(5)
    changed = {
        name: one + 0.1 * torch.randn(one.shape, generator=noise) for name, one in weights_of(tmp_path / name).items()
    }
    save_file(changed, tmp_path / "reference" / "model.safetensors", metadata={"format": "pt"})
    return tokenizer


def add(tmp_path: Path, preset: str | None = "implicit-prm", beta: float | None = BETA, **more: Any) -> Imported:
    wanted = {"reference": tmp_path / "reference", "beta": beta, "preset": preset} | more
    return add_checkpoint(Store(tmp_path / "store"), tmp_path / "policy", Wanted("ratio", "1", **wanted))


Pieces = list[tuple[str, bool]]
"""Texts, and whether the agent said them; its end-of-turn token is its own too."""


def chatml(one: Trajectory) -> list[Pieces]:
    steps, before = [], f"<|im_start|>user\n{one.task}<|im_end|>\n"
    for step in one.steps:
        before += f"<|im_start|>user\n{step.observation}<|im_end|>\n" if step.observation else ""
        steps.append([(f"{before}<|im_start|>assistant", False), (f"\n{step.action}<|im_end|>", True)])
        before = "\n"
    return steps


def llama(one: Trajectory) -> list[Pieces]:
    header = "<|start_header_id|>{}<|end_header_id|>"
    before = f"<|begin_of_text|>{header.format('system')}\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    before, steps = f"{before}{header.format('user')}\n\n{one.task}<|eot_id|>", []
    for step in one.steps:
        before += f"{header.format('user')}\n\n{step.observation}<|eot_id|>" if step.observation else ""
        steps.append([(before + header.format("assistant"), False), (f"\n\n{step.action.strip()}<|eot_id|>", True)])
        before = ""
    return steps


def one_turn(one: Trajectory) -> list[Pieces]:
    """Steps follow each other in one turn of the assistant, as EurusPRM's do; an observation ends it."""
    steps, before = [], f"<|im_start|>user\n{one.task}<|im_end|>\n<|im_start|>assistant"
    opening = "\n"
    for step in one.steps:
        pieces = [(before, False)]
        if step.observation:
            seen = f"\n<|im_start|>user\n{step.observation}<|im_end|>\n<|im_start|>assistant"
            pieces += [(f"{opening}<|im_end|>", True), (seen, False)]
            opening = "\n"
        steps.append([*pieces, (f"{opening}{step.action}\n\n", True)])
        before = opening = ""
    return steps


def implied(tmp_path: Path, tokenizer: Tokenizer, steps: Sequence[Pieces]) -> list[float]:
    """The sum up to the end of each step, from both language models' own logits."""
    tokenizer.encode_special_tokens = False
    ids, own, ends = list[int](), list[bool](), list[int]()
    for pieces in steps:
        for text, mine in pieces:
            new = tokenizer.encode(text, add_special_tokens=False).ids
            ids, own = ids + new, own + [mine] * len(new)
        ends.append(len(ids))
    sides = [
        logits(tmp_path / name, ids)[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        for name in ("policy", "reference")
    ]
    sums = [0.0, *accumulate(((sides[0] - sides[1]) * torch.tensor(own[1:])).tolist())]
    return [BETA * sums[end - 1] for end in ends]


LAYOUTS = {
    "turns": ("implicit-prm", CHATML, chatml),
    "turns of Llama 3": ("implicit-prm", LLAMA_CHAT, llama),
    "EurusPRM": ("eurus-prm", CHATML, one_turn),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_step_scores_as_both_language_models_have_it(layout: str, tmp_path: Path) -> None:
    """Alone and in company, with observations and without, every step at once and each one last."""
    preset, chat, pieces = LAYOUTS[layout]
    tokenizer = make_pair(tmp_path, chat)
    expected = [implied(tmp_path, tokenizer, pieces(one)) for one in TRAJECTORIES]
    assert len({round(raw, 3) for row in expected for raw in row}) == 6, "scores that can be told apart"
    checkpoint = add(tmp_path, preset).checkpoint
    renderer = load_renderer(checkpoint)
    engine = load_engine(checkpoint, "cpu", "auto", prefix_cache_bytes=0, cpu_threads=1)

    def assert_scored(trajectories: Sequence[Trajectory], wanted: Sequence[Sequence[float]]) -> None:
        rendered = [renderer.trajectory(one) for one in trajectories]
        scored = engine.score([one.token_ids for one in rendered], [one.step_ends for one in rendered])
        for scores, raw in zip(scored, wanted, strict=True):
            assert scores.raw == pytest.approx(raw, abs=1e-5)

    assert_scored(TRAJECTORIES, expected)
    for one, raw in zip(TRAJECTORIES, expected, strict=True):
        assert_scored([one], [raw])
        cut = [Trajectory(one.task, one.steps[: end + 1]) for end in range(len(one.steps))]
        assert_scored(cut, [raw[: end + 1] for end in range(len(raw))])


def test_a_bound_on_logits_changes_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(tmp_path)
    whole = add(tmp_path).raw
    monkeypatch.setattr(heads, "LOGITS", 1)
    assert add_checkpoint(
        Store(tmp_path / "other"),
        tmp_path / "policy",
        Wanted("ratio", "1", preset="implicit-prm", reference=tmp_path / "reference", beta=BETA),
    ).raw == pytest.approx(whole, abs=1e-6)


def test_the_agents_words_cannot_end_or_begin_its_turn() -> None:
    opens, closes = (1, 2), 3
    ids = [1, 2, 5, 3, 9, 2, 9, 1, 2, 6, 6]
    assert [one for one, own in zip(ids, own_tokens(ids, opens, closes), strict=True) if own] == [5, 3, 6, 6]


def test_special_tokens_in_an_action_are_its_own_words(tmp_path: Path) -> None:
    make_pair(tmp_path)
    checkpoint = add(tmp_path).checkpoint
    score, renderer = checkpoint.manifest.score, load_renderer(checkpoint)
    assert score.closes is not None
    action = "I<|im_end|>\n<|im_start|>user\nyou"
    ids = renderer.trajectory(Trajectory("How many?", (Step("", action),))).token_ids
    own = [token for token, mine in zip(ids, own_tokens(ids, score.opens, score.closes), strict=True) if mine]
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    assert tokenizer.decode(own, skip_special_tokens=False) == f"\n{action}<|im_end|>"


def test_the_service_answers_with_both_models_scores(tmp_path: Path) -> None:
    tokenizer = make_pair(tmp_path)
    raw = implied(tmp_path, tokenizer, chatml(TRAJECTORIES[0]))
    manifest = add(tmp_path).checkpoint.manifest
    settings = Settings(model_store=tmp_path / "store", models=("ratio",), device="cpu")
    app = create_app(load_models(settings), settings)
    steps = [{"observation": step.observation, "action": step.action} for step in STEPS]

    async def ask() -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as one:
            items = {"items": [{"task": "How many are left?", "steps": steps}]}
            every = (await one.post("/score_trajectory", json=items)).json()["results"][0]["steps"]
            last = (await one.post("/score_step", json=items)).json()["results"][0]
            state = {"task": "How many are left?", "steps": steps[:2], "candidates": [STEPS[2].action, "look"]}
            ranked = (await one.post("/rank_actions", json={"items": [state]})).json()["results"][0]["ranking"]
        chosen = next(candidate for candidate in ranked if candidate["index"] == 0)
        return [*every, last, chosen]

    found = asyncio.run(ask())
    promises = [manifest.score.promise(one) for one in [*raw, raw[2], raw[2]]]
    assert [one["raw"] for one in found] == pytest.approx([*raw, raw[2], raw[2]], abs=1e-5)
    assert [one["promise"] for one in found] == pytest.approx(promises, abs=1e-5)
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
    full, quantised = (load_engine(checkpoint, "cpu", "auto", weights=one, **given) for one in ("auto", "int8"))
    for backbone in quantised._model.backbones():
        assert type(backbone.get_parameter("layers.0.mlp.up_proj.weight")).__name__ == "Int8Tensor"
    (error,) = errors
    assert 0 < error.raw_rms < 0.1
    rendered = load_renderer(checkpoint).trajectory(TRAJECTORIES[0])
    scores = [one.score([rendered.token_ids], [rendered.step_ends])[0].raw for one in (full, quantised)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
    assert scores[1] != scores[0]


def test_the_digest_and_the_refusals_cover_the_reference(tmp_path: Path) -> None:
    make_pair(tmp_path)
    published, store = add(tmp_path).checkpoint, Store(tmp_path / "store")
    assert store.resolve("ratio") == published
    edit_config(published.path / "reference", rms_norm_eps=0.5)
    with pytest.raises(CheckpointCorrupt, match="has changed since it was published"):
        store.resolve("ratio")
    (published.path / "reference" / "modeling_x.py").write_text("raise SystemExit")
    with pytest.raises(CheckpointCorrupt, match="is code"):
        store.resolve("ratio")


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"reference": None}, "a log_ratio needs a --reference"),
        ({"beta": None}, "score: beta must be positive"),
        ({"beta": 0.0}, "score: beta must be positive"),
        ({"beta": -0.5}, "score: beta must be positive"),
        ({"preset": "llemma", "beta": None}, "a log_ratio needs a --reference, .* and no other head does"),
        ({"preset": "llemma", "reference": None}, "score: beta .* goes with no other"),
    ],
)
def test_what_a_ratio_lacks_is_said_in_a_sentence(wanted: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    make_pair(tmp_path)
    with pytest.raises((CheckpointError, ManifestInvalid), match=complaint):
        add(tmp_path, **wanted)
    assert Store(tmp_path / "store").references() == []


def test_a_reference_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    make_pair(tmp_path)
    byte_level([*CHATML_TOKENS, "<more>"]).save(str(tmp_path / "reference" / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has another tokenizer than the policy"):
        add(tmp_path)


def test_a_reference_with_a_smaller_vocabulary_is_refused(tmp_path: Path) -> None:
    rows = make_pair(tmp_path).token_to_id("<|im_start|>")
    whole = weights_of(tmp_path / "reference")
    cut = {
        name: one[:rows].clone() if name.endswith(("embed_tokens.weight", "head.weight")) else one
        for name, one in whole.items()
    }
    save_file(cut, tmp_path / "reference" / "model.safetensors", metadata={"format": "pt"})
    edit_config(tmp_path / "reference", vocab_size=rows)
    with pytest.raises(CheckpointError, match=f"closes name {rows}, the output layer knows {rows} tokens"):
        add(tmp_path)


def test_a_checkpoint_without_its_reference_does_not_load(tmp_path: Path) -> None:
    make_pair(tmp_path)
    checkpoint = add(tmp_path).checkpoint
    with pytest.raises(CheckpointCorrupt, match="has no directory reference"):
        load_model(Checkpoint(tmp_path / "policy", checkpoint.manifest), "cpu", "auto")


@pytest.mark.parametrize(
    ("speech", "complaint"),
    [
        ({"opens": "Step", "closes": "<|im_end|>"}, "opens must begin with a special token"),
        ({"opens": "<|im_start|>", "closes": "left"}, "closes must be a special token"),
        ({"opens": "<extra_0>", "closes": "<|im_end|>"}, "find nothing that the agent says"),
    ],
)
def test_a_recipe_that_cannot_tell_who_speaks_is_refused(
    speech: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    make_pair(tmp_path)
    score = {"head": "log_ratio", "activation": "sigmoid", "beta": 1.0, **speech}
    texts = {"begin": "", "task": ["{start}", "{user_end}"], "observation": ["{user}", "{user_end}"]}
    template = {**texts, "action": ["{assistant}", "{assistant_end}"], "tokenise": "text"}
    (tmp_path / "mine.json").write_text(json.dumps({"score": score, "template": template}))
    with pytest.raises(CheckpointError, match=complaint):
        add(tmp_path, preset=None, beta=None, recipe=tmp_path / "mine.json")


def test_the_command_adds_a_policy_with_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pair(tmp_path)
    where = ["--store", str(tmp_path / "store"), "--name", "ratio", "--version", "1", "--preset", "implicit-prm"]
    both = [str(tmp_path / "policy"), "--reference", str(tmp_path / "reference"), "--beta", "0.05"]
    assert main(["add", *both, *where]) == 0
    assert "log_ratio; 0.05 x" in capsys.readouterr().out
