"""``python -m training check`` over real files."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from model_store.text.loading import render
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, byte_level, config_of
from tests.training.rollouts.samples import write_jsonl
from training.__main__ import run
from training.base_model import base_text
from training.rollouts.reading import read

GOOD = {"task": "leave", "steps": [{"observation": "a door", "action": "open it"}], "outcome": 1, "query": "q"}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "stay"}, {"role": "assistant", "content": "ok"}],
    "outcome": 0.5,
}


def test_a_good_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD, {**GOOD, "outcome": 0, "labels": [0.5]}, CHAT])
    assert run(["check", str(path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 trajectories of 2 queries, 0 bad lines\n  1 are chats, 0 were truncated\n")
    for line in ("outcome 0.5: 1 (33%)", "1 steps have a label", "1 of 2 queries have one attempt only"):
        assert line in printed


def test_bad_lines_are_named_and_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD, {**GOOD, "outcome": 2}, {"messages": [], "outcome": 1}])
    assert run(["check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["trajectories"] == 1
    assert found["bad"] == [
        {"place": f"{path}, line 2", "reason": "outcome must be from 0 to 1, not 2"},
        {"place": f"{path}, line 3", "reason": "messages must not be empty"},
    ]


def test_what_could_be_read_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = {**GOOD, "trajectory_id": "a", "outcome": None}
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD, CHAT, recorded, {"trajectory_id": "a", "outcome": 0}])
    assert run(["check", str(path), "--convert", str(tmp_path / "out.jsonl")]) == 0
    assert f"3 trajectories were written to {tmp_path / 'out.jsonl'}\n" in capsys.readouterr().out
    assert read([tmp_path / "out.jsonl"]).whole() == read([path]).whole()


CALL = {"id": "c", "type": "function", "function": {"name": "go", "arguments": "{}"}}
CALLING = {"messages": [CHAT["messages"][0], {"role": "assistant", "tool_calls": [CALL]}], "outcome": 1}
STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + CHATML


def base_in(path: Path, template: str) -> str:
    """A base model without weights: what ``check`` reads of one."""
    tokenizer = byte_level(CHATML_TOKENS)
    config_of(LlamaConfig, tokenizer).save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(path)


def test_lengths_are_in_tokens_of_the_base_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": "x " * 600}], "outcome": 1}
    greeting = {"messages": [CHAT["messages"][1], *CHAT["messages"]], "outcome": 1}
    path = write_jsonl(tmp_path / "a.jsonl", [CHAT, long, CALLING, greeting])
    base = base_in(tmp_path / "base", STRICT)
    assert run(["check", str(path), "--base", base, "--context-length", "500", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    with base_text(base) as text:
        ((token_ids, _),) = render(text.renderer, read([path]).rollouts[1].history)
    assert (found["tokens"]["lengths"]["most"], found["tokens"]["too_long"]) == (len(token_ids), 1)
    assert found["notes"][-1].startswith("the template of the base model does not show tool calls")
    assert [each["place"] for each in found["bad"]] == [f"{path}, line 4"]
    assert "user first" in found["bad"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["missing.jsonl"], 1, "training: missing.jsonl does not exist"),
        ([".", "--format", "csv"], 2, "there is no format 'csv'; there are: auto, rollouts, tau-bench"),
        ([], 2, "Missing argument"),
    ],
)
def test_a_wrong_command_is_told_in_a_sentence(
    arguments: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", *arguments]) == status
    assert sentence in capsys.readouterr().err
