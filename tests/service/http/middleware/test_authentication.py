"""Every route with and without a key; docs/security.md holds the table that this makes."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.api_keys import new_key
from service.http.routes.admin import ROUTES as ADMIN_ROUTES
from service.http.routes.scores import ROUTES
from tests.service.echo_app import GatedEngine, item, proposal, serving
from tests.service.http.routes.test_under_load import order_of_computing

SECURITY = Path(__file__).parents[4] / "docs" / "security.md"
GET = (
    "/models", "/health", "/ready", "/metrics", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json",
    "/no/such/route",
)  # fmt: skip
POST: dict[str, Any] = {
    "/score_step": {"items": [item()]},
    "/score_trajectory": {"items": [item()]},
    "/rank_actions": {"items": [proposal("go")]},
    "/outcomes": {"trajectory_id": "a", "outcome": 1.0},
    "/admin/load": {"model": "textcraft-demo@1"},
    "/admin/unload": {"model": "nobody"},
    "/admin/alias": {"alias": "x", "model": "nobody"},
    "/admin/reload": {},
}
TOKEN, LINE = new_key("agents")
RECORD, RECORD_LINE = new_key("reporter", "record")
ADMIN, ADMIN_LINE = new_key("ops", "admin")
WRONG = new_key("agents")[0]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n{RECORD_LINE}\n{ADMIN_LINE}\n")
    return path


async def status(client: httpx.AsyncClient, route: str, token: str | None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if route in POST:
        return (await client.post(route, json=POST[route], headers=headers)).status_code
    return (await client.get(route, headers=headers)).status_code


def table(keys: Path, **settings: Any) -> dict[str, list[int]]:
    async def scenario() -> dict[str, list[int]]:
        async with serving(api_keys_file=keys, record=keys.parent / "recorded", **settings) as client:
            return {
                route: [await status(client, route, token) for token in (None, WRONG, TOKEN, RECORD, ADMIN)]
                for route in (*POST, *GET)
            }

    return asyncio.run(scenario())


def test_every_route_is_guarded_but_the_probes_and_the_docs_say_so(keys: Path) -> None:
    found = table(keys)
    assert {*ROUTES, *ADMIN_ROUTES} <= set(found)
    assert {route for route, codes in found.items() if codes[0] != 401} == {"/health", "/ready", "/metrics"}
    rows = [f"| `{route}` | {' | '.join(map(str, codes))} |" for route, codes in found.items()]
    documented = SECURITY.read_text(encoding="utf-8")
    assert all(row in documented for row in rows), "\n".join(rows)


def test_metrics_can_be_guarded_too(keys: Path) -> None:
    assert table(keys, guard_metrics=True)["/metrics"] == [401, 401, 200, 403, 403]


def test_without_a_file_of_keys_nothing_is_guarded() -> None:
    async def scenario() -> None:
        async with serving() as client:
            assert await status(client, "/score_step", None) == 200

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "given",
    [f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer ", f"Bearer {TOKEN} x", "bearer\xff\xfe"],
    ids=["another scheme", "no scheme", "no key", "an empty key", "more than a key", "no text"],  # the key is random
)
def test_another_form_of_authorization_is_refused(given: str, keys: Path) -> None:
    async def scenario() -> None:
        async with serving(api_keys_file=keys) as client:
            headers = {b"authorization": given.encode("latin-1")}
            refused = await client.post("/score_step", json=POST["/score_step"], headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "unauthorized"

    asyncio.run(scenario())


def test_a_stranger_costs_no_body_and_no_forward(keys: Path) -> None:
    async def scenario() -> None:
        engine = GatedEngine()

        async def endless() -> Any:
            yield b"{"
            raise AssertionError("the body was read")

        async with serving(engine, api_keys_file=keys) as client:
            refused = await client.post("/score_step", content=endless())
            assert refused.status_code == 401
        assert len(engine.calls) == 1, "the warm-up"

    asyncio.run(scenario())


def test_the_log_names_the_key_and_never_holds_it(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(api_keys_file=keys) as client:
            for token in (TOKEN, WRONG):
                await status(client, "/score_step", token)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    lines = [record.__dict__["fields"] for record in caplog.records if record.message == "request"]
    assert [line.get("key") for line in lines] == ["agents", None]
    assert TOKEN not in caplog.text + str(lines)
    assert WRONG not in caplog.text + str(lines)


def test_callers_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    """Two keys at one address: the key with a single request does not wait for all requests of the other."""
    (many_key, many_line), (few_key, few_line) = new_key("many"), new_key("few")
    path = tmp_path / "keys"
    path.write_text(f"{many_line}\n{few_line}\n")

    async def scenario() -> None:
        engine = GatedEngine()
        async with serving(engine, api_keys_file=path, max_batch_tokens=1) as client:
            client.headers["authorization"] = f"Bearer {many_key}"
            mine: dict[str, str] = {}
            theirs = {"authorization": f"Bearer {few_key}"}
            asked = [(client, "/score_step", key) for key in (mine, mine, mine, theirs)]
            assert await order_of_computing(engine, *asked) == [0, 3, 1, 2]

    asyncio.run(scenario())
