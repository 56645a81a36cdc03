"""The sentences in which a wrong ``prm.json`` is refused."""

import json
from typing import Any

import pytest

from model_store.errors import ManifestInvalid
from model_store.format.manifest import Manifest, parse_manifest
from tests.service.echo_app import MANIFEST

GOOD: dict[str, Any] = {**json.loads(MANIFEST.to_json()), "digest": "sha256:0"}


def parsed(**changes: Any) -> Manifest:
    return parse_manifest(json.dumps(GOOD | changes))


def refused(**changes: Any) -> str:
    with pytest.raises(ManifestInvalid) as error:
        parsed(**changes)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": 1}, "prm.json: name must be a text"),
        ({"context_length": 64.0}, "prm.json: context_length must be a whole number"),
        ({"context_length": True}, "prm.json: context_length must be a whole number"),
        ({"context_length": None}, "prm.json: context_length must be a whole number"),
        ({"training": []}, "prm.json: training must be an object"),
        ({"score": []}, "prm.json: score must be an object"),
        ({"judge": None}, "prm.json: judge must be an object"),
        ({"dtype": "int8"}, "prm.json: dtype must be one of 'float32', 'bfloat16' or 'float16'"),
        ({"score": {**GOOD["score"], "output": None}}, "prm.json: score: output must be a whole number"),
        ({"score": {**GOOD["score"], "layers": "score"}}, "prm.json: score: layers must be a list"),
        ({"score": {**GOOD["score"], "tokens": [1, "2"]}}, "prm.json: score: tokens[1] must be a whole number"),
        (
            {"score": {**GOOD["score"], "calibration": {"a": 10**400, "b": 0}}},
            "prm.json: score: calibration: a must be a number",
        ),
        (
            {"score": {**GOOD["score"], "calibration": {"a": True, "b": 0}}},
            "prm.json: score: calibration: a must be a number",
        ),
        ({"template": {**GOOD["template"], "strip": 1}}, "prm.json: template: strip must be true or false"),
        ({"template": {**GOOD["template"], "task": "x"}}, "prm.json: template: task must be a list of 2 texts"),
        ({"template": {**GOOD["template"], "task": ["x", 1]}}, "prm.json: template: task must be a list of 2 texts"),
        ({"template": {"begin": ""}}, "prm.json: template: action, observation, task are missing"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_field(changes: dict[str, Any], sentence: str) -> None:
    assert refused(**changes) == sentence


def test_a_whole_number_is_a_number() -> None:
    calibration = parsed(score={**GOOD["score"], "calibration": {"a": 2, "b": 0}}).score.calibration
    assert calibration is not None
    assert [type(value) for value in (calibration.a, calibration.b)] == [float, float]


def test_a_manifest_that_is_no_object_is_refused() -> None:
    with pytest.raises(ManifestInvalid, match=r"^prm\.json must be an object$"):
        parse_manifest("[]")


def test_at_most_five_missing_or_unknown_fields_are_listed() -> None:
    with pytest.raises(ManifestInvalid) as error:
        parse_manifest("{}")
    assert str(error.value) == "prm.json: base_model, context_length, dtype, evaluation, format are missing"
    more = {f"field{number}": 1 for number in range(9)}
    assert refused(**more) == "prm.json: field0, field1, field2, field3, field4 are not fields"


def test_text_of_the_file_is_shown_cut_and_on_one_line() -> None:
    assert refused(**{"a\nb": 1}) == "prm.json: a b is not a field"
    assert refused(**{"x" * 1000: 1}) == f"prm.json: {'x' * 80} is not a field"
    assert refused(**{"": 1}) == "prm.json: '' is not a field"
    assert "secret" not in refused(name=["secret"])
