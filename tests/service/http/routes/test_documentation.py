"""The pages /docs and /openapi.json."""

import asyncio
import re
from typing import Any

import pytest

from agentprm import wire
from service.http import examples
from tests.service.echo_app import serving


@pytest.mark.parametrize(
    ("route", "requests", "reply", "kind"),
    [
        ("/score_step", examples.SCORE_REQUESTS, examples.STEP_REPLY, wire.ScoreStepReply),
        ("/score_trajectory", examples.SCORE_REQUESTS, examples.TRAJECTORY_REPLY, wire.ScoreTrajectoryReply),
        ("/rank_actions", examples.RANK_REQUESTS, examples.RANK_REPLY, wire.RankActionsReply),
    ],
)
def test_the_documented_examples_are_true(
    route: str, requests: dict[str, dict[str, Any]], reply: dict[str, Any], kind: type[wire.Body]
) -> None:
    async def scenario() -> None:
        async with serving() as client:
            for name, example in requests.items():
                expected = 422 if name == "sample" else 200  # there is no policy here
                assert (await client.post(route, json=example["value"])).status_code == expected
        kind.model_validate(reply)

    asyncio.run(scenario())


def test_every_score_route_documents_its_replies_and_errors() -> None:
    async def scenario() -> None:
        async with serving() as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
        for route in ("/score_step", "/score_trajectory", "/rank_actions"):
            post = paths[route]["post"]
            assert set(post["responses"]) == {
                "200",
                "401",
                "403",
                "404",
                "408",
                "413",
                "415",
                "422",
                "429",
                "500",
                "502",
                "503",
                "504",
            }
            assert post["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
            assert post["requestBody"]["content"]["application/json"]["examples"]

    asyncio.run(scenario())


def test_the_page_of_docs_needs_no_other_host() -> None:
    types = {"css": "text/css", "js": "text/javascript", "png": "image/png"}

    async def scenario() -> None:
        async with serving() as client:
            page = (await client.get("/docs")).text
            named = re.findall(r'(?:src|href)="([^"]*)"', page)
            assert sorted(url.rpartition(".")[2] for url in named) == sorted(types)
            assert "http" not in page
            for url in named:
                asset = await client.get(url)
                assert asset.status_code == 200
                assert asset.headers["content-type"].partition(";")[0] == types[url.rpartition(".")[2]]
            refused = await client.post(named[0])
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")

    asyncio.run(scenario())


def test_the_priority_is_documented() -> None:
    async def scenario() -> None:
        async with serving() as client:
            schema = (await client.get("/openapi.json")).json()
        assert schema["components"]["schemas"]["Priority"]["enum"] == ["interactive", "bulk"]
        for route, default in (
            ("score_step", "interactive"),
            ("rank_actions", "interactive"),
            ("score_trajectory", "bulk"),
        ):
            headers = {header["name"]: header for header in schema["paths"][f"/{route}"]["post"]["parameters"]}
            assert headers["x-priority"]["schema"]["default"] == default
            assert headers["x-priority"]["description"]

    asyncio.run(scenario())
