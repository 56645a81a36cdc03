"""Chats that differ in one thing, through HTTP: raw scores are equal exactly where the same facts are told."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.format.store import Store
from service.models.load import Loaded, load_checkpoint
from service.settings import Settings
from tests.service.echo_app import loaded, serving
from tests.service.http.chats.telling_engine import TellingEngine

CASES = Path(__file__).parent / "cases"
Post = Callable[[str, Any], httpx.Response]


@pytest.fixture(scope="module", params=["every text differs", "the bundled checkpoint"])
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    model = loaded(TellingEngine()) if request.param == "every text differs" else bundled()
    with asyncio.Runner() as runner:
        service = AsyncExitStack()
        client = runner.run(service.enter_async_context(serving(model, aliases={})))
        yield lambda path, body: runner.run(client.post(path, json=body))
        runner.run(service.aclose())


def bundled() -> Loaded:
    settings = Settings(device="cpu")
    return load_checkpoint(Store(settings.model_store).resolve("textcraft-demo"), settings)


def case(name: str) -> Any:
    return json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))


def raw(post: Post, body: Any) -> float:
    reply = post("/score_step", body)
    assert reply.status_code == 200, reply.text
    score: float = reply.json()["results"][0]["raw"]
    return score


def refusal(reply: httpx.Response) -> str:
    assert reply.status_code == 422
    message: str = reply.json()["error"]["message"]
    return message


def without(value: Any, *names: str) -> Any:
    """``value`` without the fields of these names, at any depth."""
    if isinstance(value, dict):
        return {name: without(held, *names) for name, held in value.items() if name not in names}
    return [without(held, *names) for held in value] if isinstance(value, list) else value


def test_results_in_another_order_are_the_same_facts_and_swapped_ones_are_others(post: Post) -> None:
    told = raw(post, case("parallel_true"))
    assert raw(post, case("parallel_other_order")) == pytest.approx(told, abs=1e-5)
    assert raw(post, case("parallel_swapped")) != pytest.approx(told, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("tool_call_index", "index"),
        ("parsed_arguments_null", "parsed_arguments"),
        ("cache_control_null", "cache_control"),
        ("provider_fields", "provider_specific_fields"),
    ],
)
def test_a_field_without_text_changes_no_score(post: Post, name: str, field: str) -> None:
    plain = without(case(name), field)
    assert plain != case(name)
    assert raw(post, case(name)) == pytest.approx(raw(post, plain), abs=1e-5)


def test_reasoning_is_rendered_or_dropped_as_the_item_says(post: Post) -> None:
    chat = case("reasoning_content")
    plain = raw(post, without(chat, "reasoning_content"))

    def with_reasoning(wish: str) -> float:
        return raw(post, {"items": [{**chat["items"][0], "reasoning": wish}]})

    assert with_reasoning("drop") == pytest.approx(plain, abs=1e-5)
    assert with_reasoning("include") != pytest.approx(plain, abs=1e-5)
    assert raw(post, chat) == pytest.approx(with_reasoning("include"), abs=1e-5)


def test_an_image_and_an_empty_turn_are_named(post: Post) -> None:
    image = refusal(post("/score_step", case("image_part")))
    assert image == "messages.0.content.1: parts of type image_url are not scored"
    empty = refusal(post("/score_step", case("empty_turn")))
    assert empty == "messages.3: an assistant message needs content or tool_calls"


def test_a_candidate_without_a_role_is_the_assistants(post: Post) -> None:
    body = case("candidate_without_role")
    body["items"][0]["candidates"].append({"role": "assistant", "content": "look"})
    first, second = post("/rank_actions", body).json()["results"][0]["ranking"]
    assert first["raw"] == second["raw"]
    refused = post("/rank_actions", {"items": [{**body["items"][0], "candidates": ["x", {"content": ""}]}]})
    assert refusal(refused) == "candidates.1: an assistant message needs content or tool_calls"
