"""Rollouts in tokens: one row where a template only appends, a row a step where it does not, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from agentprm.errors import AgentPRMError
from agentprm.types import Step, Trajectory
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.loading import render
from model_store.text.renderer import Renderer
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, byte_level, config_of, save
from training.base_model import base_text
from training.data.encoding import encode
from training.rollouts.rollout import Rollout

ROLLOUTS = [
    Rollout(
        Trajectory("How many are left?", tuple(Step("per day", f"She eats {number}.") for number in range(steps))),
        outcome=1.0,
        truncated=steps == 2,
        query="eggs",
        trajectory_id=name,
    )
    for steps, name in [(1, "short"), (2, None), (9, "long"), (10, "longer"), (11, "longest"), (12, "last")]
]


def renderer(path: Path, chat: str) -> Renderer | ChatRenderer:
    tokenizer = byte_level(CHATML_TOKENS)
    config: Any = config_of(LlamaConfig, tokenizer)
    save(path, LlamaForCausalLM(config), tokenizer, chat=chat)
    with base_text(str(path)) as text:
        return text.renderer


def test_a_template_that_only_appends_has_one_row_and_another_a_row_a_step(tmp_path: Path) -> None:
    appending = renderer(tmp_path / "appending", CHATML)
    counting = renderer(tmp_path / "counting", "{{ messages | length }}" + CHATML)
    one, each = (encode(ROLLOUTS[:3], by, 1000).examples for by in (appending, counting))
    assert [len(example.rows) for example in one] == [1, 1, 1]
    assert [len(example.rows) for example in each] == [1, 2, 9]
    for example, rollout in zip([*one, *each], ROLLOUTS[:3] * 2, strict=True):
        assert example.steps == rollout.steps
    assert list(one[2].rows) == render(appending, ROLLOUTS[2].history)
    assert [example.name for example in one] == ["short", "trajectory 2", "long"]
    assert [example.outcome for example in one] == [1.0, None, 1.0]


def test_trajectories_that_are_too_long_are_named_or_left_out_and_counted(tmp_path: Path) -> None:
    by = renderer(tmp_path / "base", CHATML)
    complaint = "4 of 6 trajectories have more than 60 tokens: long, longer, longest and 1 more; .*--skip-too-long"
    with pytest.raises(AgentPRMError, match=complaint):
        encode(ROLLOUTS, by, 60)
    encoding = encode(ROLLOUTS, by, 60, skip_too_long=True)
    assert [example.name for example in encoding.examples] == ["short", "trajectory 2"]
    assert encoding.too_long == ["long", "longer", "longest", "last"]


def test_a_trajectory_without_steps_is_refused(tmp_path: Path) -> None:
    empty = Rollout(Trajectory("How many are left?"), 1.0, truncated=False, query="eggs")
    with pytest.raises(AgentPRMError, match="trajectory 2 has no step to learn from"):
        encode([ROLLOUTS[0], empty], renderer(tmp_path / "base", CHATML), 100)
