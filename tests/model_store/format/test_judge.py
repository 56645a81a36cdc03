"""A judge's manifest and its prompts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentprm.types import Step, Trajectory
from model_store.errors import ManifestInvalid
from model_store.format.judge import Judge, NumberVerdict, Turn
from model_store.format.manifest import Manifest, parse_manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Store
from tests.service.echo_app import MANIFEST

JUDGE = Judge(("Yes",), ("No",), messages=(Turn("user", "{task} {action}?"),), model="judge-8b")
JUDGED = replace(MANIFEST, name="judge", score=ScoreRecipe("judge", "softmax", "verdict"), judge=JUDGE)


def test_a_judge_is_published_and_resolved_as_a_manifest_alone(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    store = Store(tmp_path / "store")
    store.root.mkdir()
    published = store.publish(tmp_path / "source", JUDGED)
    assert store.resolve("judge@1").manifest == published.manifest
    assert [file.name for file in published.path.iterdir()] == ["prm.json"]
    assert published.manifest.judge == JUDGE
    other = store.publish(tmp_path / "source", replace(JUDGED, version="2", judge=replace(JUDGE, model="judge-70b")))
    assert other.manifest.digest != published.manifest.digest


def test_places_are_filled_at_once_and_other_braces_stay() -> None:
    judge = Judge(("1",), ("0",), text='{"a": {b}} \\boxed{} {task}|{history}|{observation}|{action}|{action}')
    step = Trajectory("{action}", (Step("{task}", "{history}"),))
    assert judge.prompt(step, "{observation}") == (
        '{"a": {b}} \\boxed{} {action}|{observation}|{task}|{history}|{history}'
    )
    chat = replace(judge, text="", messages=(Turn("system", "{task}"), Turn("user", "{action}")), model="m")
    assert chat.chat(step, "") == [{"role": "system", "content": "{action}"}, {"role": "user", "content": "{history}"}]


def test_the_history_is_written_as_the_template_says() -> None:
    steps = (Step("saw", "look"), Step("", "go"))
    assert MANIFEST.texts.steps_text(steps) == "<obs>saw</obs><act>look</act><obs></obs><act>go</act>"
    whole = MANIFEST.texts.whole_text(Trajectory("t", steps))
    assert whole == "<s><task>t</task>" + MANIFEST.texts.steps_text(steps)


def parsed(**judge: Any) -> Manifest:
    data = json.loads(JUDGED.to_json())
    data["digest"] = "sha256:0"
    data["judge"] |= judge
    return parse_manifest(json.dumps(data))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"text": "{action}"}, "messages or text must hold the prompt, and not both"),
        ({"messages": [], "model": ""}, "messages or text must hold the prompt, and not both"),
        ({"messages": [{"role": "user", "content": "{task}"}]}, "text or messages must have a place for {action}"),
        ({"messages": [{"role": "tool", "content": "{action}"}]}, "messages[0]: role must be one of"),
        ({"model": ""}, "model must name the model on its server, for messages only"),
        ({"good": []}, "good and bad must hold a text each"),
        ({"bad": ["Yes"]}, "bad and good must not hold the same text"),
        ({"bad": [" No"]}, "good and bad must hold texts without white space around them"),
        ({"max_tokens": 0}, "max_tokens must be positive"),
        ({"after": "Label:"}, "max_tokens must be positive, and 2 or more"),
        ({"top_logprobs": 1}, "top_logprobs must be from 2 to 20"),
        ({"verdict": "x"}, "verdict is not a field"),
    ],
)
def test_a_judge_whose_fields_do_not_fit_is_refused_in_one_sentence(wrong: dict[str, Any], complaint: str) -> None:
    assert parsed().judge == JUDGE
    with pytest.raises(ManifestInvalid) as refused:
        parsed(**wrong)
    assert complaint in str(refused.value)


GRADER = replace(JUDGE, good=(), bad=(), after="Score:", max_tokens=50, number=NumberVerdict(0.0, 10.0, "/10"))
NUMBER = replace(JUDGED, score=ScoreRecipe("judge", "identity", "verdict"), judge=GRADER)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"number": None}, "number must be an object"),
        ({"number": {"low": 0}}, "number: high is missing"),
        ({"number": {"low": 0, "high": "10"}}, "number: high must be a number"),
        ({"number": {"low": 1, "high": 1}}, "number must have a low under its high"),
        ({"number": {"low": -1.7e308, "high": 1.7e308}}, "number must have a low under its high, both finite"),
        ({"number": {"low": 0, "high": 10, "until": ".0"}}, "number: until must not begin with a digit, sign or point"),
        ({"after": "Score: -"}, "after must not end in a digit, sign or point"),
        ({"good": ["10"]}, "good and bad are texts of tokens; a number has none"),
        ({"max_tokens": 1}, "max_tokens must be 2 or more"),
        ({"top_logprobs": 7}, "top_logprobs is of tokens"),
    ],
)
def test_a_number_whose_fields_do_not_fit_is_refused_in_one_sentence(wrong: dict[str, Any], complaint: str) -> None:
    data = json.loads(replace(NUMBER, digest="sha256:0").to_json())
    assert parse_manifest(json.dumps(data)).judge == GRADER
    data["judge"] |= wrong
    with pytest.raises(ManifestInvalid, match=f"^prm.json: judge: {re.escape(complaint)}"):
        parse_manifest(json.dumps(data))


def test_a_number_is_published_with_the_range_that_it_is_mapped_from(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    store = Store(tmp_path / "store")
    store.root.mkdir()
    ten = store.publish(tmp_path / "source", NUMBER).manifest
    five = replace(NUMBER, version="2", judge=replace(GRADER, number=NumberVerdict(0.0, 5.0, "/5")))
    assert store.resolve("judge@1").manifest == ten
    assert store.publish(tmp_path / "source", five).manifest.digest != ten.digest


@pytest.mark.parametrize(
    "manifest",
    [
        replace(NUMBER, score=ScoreRecipe("judge", "softmax", "verdict")),
        replace(NUMBER, score=ScoreRecipe("judge", "sigmoid", "verdict")),
        replace(JUDGED, score=ScoreRecipe("judge", "identity", "verdict")),
    ],
)
def test_a_number_is_taken_as_it_is_and_tokens_by_softmax(manifest: Manifest) -> None:
    with pytest.raises(ManifestInvalid, match=r"^prm\.json: score: activation must be "):
        parse_manifest(replace(manifest, digest="sha256:0").to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"judge": None},
        {"score": ScoreRecipe("linear", "sigmoid", "action_end")},
        {"score": ScoreRecipe("judge", "softmax", "action_end")},
        {"score": ScoreRecipe("judge", "sigmoid", "verdict")},
        {"score": ScoreRecipe("judge", "softmax", "verdict", direction="lower")},
        {"score": ScoreRecipe("linear", "sigmoid", "verdict"), "judge": None},
    ],
)
def test_a_judge_its_head_and_its_read_go_together(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid, match=r"^prm\.json: "):
        parse_manifest(replace(JUDGED, digest="sha256:0", **change).to_json())
