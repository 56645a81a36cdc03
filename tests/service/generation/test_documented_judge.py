"""The judges of docs/judges.md, published by the command; one is served by a process of its own."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentprm import AsyncClient, Sample, State
from model_store.__main__ import main
from model_store.format.judge import NumberVerdict
from model_store.format.manifest import Manifest
from model_store.format.store import Store
from service.generation.completions import Completion
from service.generation.verdict import raw_score
from tests.end_to_end.conftest import started
from tests.service.generation.conftest import ROOT, Server

PAGE = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")


def blocks() -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def publish(manifest: dict[str, Any], tmp_path: Path) -> Manifest:
    """Publishes by the command, and returns what is resolved from the store."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "prm.json").write_text(json.dumps(manifest))
    (tmp_path / "store").mkdir()
    assert main(["publish", str(tmp_path / "source"), "--store", str(tmp_path / "store")]) == 0
    assert main(["show", manifest["name"], "--store", str(tmp_path / "store")]) == 0
    return Store(tmp_path / "store").resolve(manifest["name"]).manifest


@pytest.fixture
def service(server: Server, tmp_path: Path) -> Iterator[str]:
    manifest = blocks()[0]
    assert manifest["name"] == "step-judge"
    publish(manifest, tmp_path)
    settings = {"model_store": str(tmp_path / "store"), "models": "step-judge", "log_level": "debug"}
    with started(tmp_path, None, **settings, judge_url=server.url, policy_url=server.url) as (process, url):
        yield url
        process.terminate()
        assert process.wait(timeout=100) == 0
    log = (tmp_path / "log").read_text()
    assert "PRIVATE" not in log
    assert server.url not in log


def test_it_scores_samples_and_hangs_up_when_its_client_does(server: Server, service: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(service) as prm:
            state = State("PRIVATE task", observation="PRIVATE")
            ranked = await prm.rank(state, ["PRIVATE a", "b"])
            assert ranked.ranking[0].raw >= ranked.ranking[1].raw
            assert len((await prm.rank(state, Sample(n=3))).ranking) == 3
            asked = (await server.happened())["asked"]
            async with server.held():
                leaves = asyncio.create_task(prm.score(state.take("PRIVATE c")))
                await server.happened(asked=asked + 1, running=1)
                leaves.cancel()
                await server.happened(left=1)
        prompt = (await server.happened())["requests"][1]["body"]["messages"][1]["content"]
        assert prompt.startswith("Task: PRIVATE task\n\nSteps so far:\n\nThe agent now sees:\nPRIVATE\n\nand does:\n")

    asyncio.run(scenario())


def test_a_judge_that_writes_a_number_is_published_and_read_as_its_row_says(tmp_path: Path) -> None:
    tokens, number = blocks()[:2]
    manifest = publish({**tokens, **number, "name": "number-judge"}, tmp_path)
    assert manifest.judge is not None
    rows = re.findall(r"^\|.*?\| `(.*?)`: promise ([0-9.]+) \| `(.*?)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for text, promise, written in rows:
        fields = {"after": "", **json.loads(f"{{{written}}}")}
        interval = NumberVerdict(**fields["number"])
        judge = replace(manifest.judge, after=fields["after"], number=interval)
        raw = raw_score(judge, Completion(text, [], complete=True, used=0))
        assert manifest.score.promise(raw) == raw == pytest.approx(float(promise), abs=1e-12)
        assert f"{interval.low + raw * (interval.high - interval.low):g}" in text
