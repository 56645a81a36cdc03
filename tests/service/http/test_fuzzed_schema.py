"""The OpenAPI description against the service: schemathesis sends what it allows and what it forbids."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import CheckContext, GenerationMode, Response
from schemathesis.config import GenerationConfig
from schemathesis.specs.openapi.checks import negative_data_rejection

from agentprm import wire
from agentprm.errors import BY_CODE
from service.settings import Settings
from tests.service.models.test_registry import TOKEN, Shop

Case = schemathesis.Case[Any]

KEY: Final = {"authorization": f"Bearer {TOKEN}"}
MODES: Final = list(GenerationMode)  # what the description allows, what it forbids
REFUSED: Final = [401, 403, 404, 405, 406, 413, 415, 422, 429, "5xx"]
"""Answers to what the description forbids: a text that is too long can make the body too long (413)."""
CONFIG: Final[dict[str, Any]] = {
    "seed": 1,
    "generation": {"allow-extra-parameters": False},  # HTTP lets a service ignore headers that it does not know
    "checks": {
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 504]},  # 504: a deadline of a millisecond passed
        "negative_data_rejection": {"expected-statuses": REFUSED},
        "positive_data_acceptance": {"enabled": False},  # a schema cannot state every rule: ``with_unstated_rules``
    },
}
fuzzed = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def new_service(root: Path) -> FastAPI:
    """A service with API keys, and so with its admin routes, over a store of its own.

    Starts with schemathesis's first request to it; its pytest plugin ends it with the test.
    """
    shop = Shop(root)
    keys, recorded = root / "keys", root / "recorded"
    settings = Settings(model_store=shop.store.root, score_cache_items=0, api_keys_file=keys, record=recorded)
    return shop.app(settings)


with TemporaryDirectory() as directory:
    DESCRIPTION = schemathesis.openapi.from_dict(
        new_service(Path(directory)).openapi(), config=schemathesis.Config.from_dict(CONFIG)
    )
OPERATIONS: Final = [DESCRIPTION[path][method] for path in DESCRIPTION for method in DESCRIPTION[path]]
SCORES: Final = [operation for operation in OPERATIONS if "scores" in (operation.tags or ())]


def an_error_is_the_envelope(_: CheckContext, reply: Response, case: Case) -> None:
    if reply.status_code >= 400:
        error = wire.ErrorReply.model_validate_json(reply.content).error
        assert BY_CODE[error.code].status == reply.status_code, case


def check(case: Case, service: FastAPI) -> None:
    """No 5xx; status, content type and body are documented; what the description forbids is refused."""
    excluded: list[Any] = [negative_data_rejection] if scores_items_alone(case) else []
    case.call_and_validate(
        app=service, headers=KEY, additional_checks=[an_error_is_the_envelope], excluded_checks=excluded
    )


def scores_items_alone(case: Case) -> bool:
    """Whether a wrong item is answered by an error of its own, in a reply with the status 200."""
    return isinstance(case.body, dict) and case.body.get("on_error") == "item"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_wrong_methods_missing_parts_and_values_at_their_bounds_get_documented_replies(
    operation: Any, tmp_path: Path
) -> None:
    service = new_service(tmp_path)
    config = GenerationConfig(allow_extra_parameters=False)
    cases = list(DESCRIPTION.iter_coverage_cases(operation, generation_modes=MODES, generation_config=config))
    assert {"GET", "POST", "PUT", "DELETE", "PATCH"} <= {case.method for case in cases}
    for case in cases:
        check(case, service)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_random_requests_get_documented_replies(operation: Any, tmp_path: Path) -> None:
    service = new_service(tmp_path)

    @fuzzed
    @given(st.one_of([operation.as_strategy(generation_mode=mode) for mode in MODES]))
    def reply_is_as_documented(case: Case) -> None:
        check(case, service)

    reply_is_as_documented()


@pytest.mark.parametrize("operation", SCORES, ids=lambda operation: operation.label)
def test_what_the_description_allows_is_scored(operation: Any, tmp_path: Path) -> None:
    service = new_service(tmp_path)
    statuses = set()

    @fuzzed
    @given(operation.as_strategy().map(with_unstated_rules))
    def reply_is_as_documented(case: Case) -> None:
        reply = case.call(app=service, headers=KEY)
        case.validate_response(reply)
        statuses.add(reply.status_code)

    reply_is_as_documented()
    assert 200 in statuses
    assert statuses <= {200, 404, 413, 504}  # no such model, too many tokens, a deadline of a millisecond


def with_unstated_rules(case: Case) -> Case:
    """The rules between fields that a schema cannot state: one form of history, and a step or candidates to score."""
    body: Any = case.body
    for item in body["items"]:
        for name in ("messages", "tools", "reasoning"):
            item.pop(name, None)
        item["task"] = item.get("task") or "Craft."
        if case.path == "/rank_actions":
            item.pop("sample", None)  # there is no policy here
            proposed = item.get("candidates") or ["look"]
            item["candidates"] = [action if isinstance(action, str) else "look" for action in proposed]
        else:
            item["steps"] = item.get("steps") or [{"action": "look"}]
    return case
