"""The judge of docs/judges.md, published by the command and served by a process of its own."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentprm import AsyncClient, Sample, State
from model_store.__main__ import main
from tests.end_to_end.conftest import started
from tests.service.generation.conftest import ROOT, Server


@pytest.fixture
def service(server: Server, tmp_path: Path) -> Iterator[str]:
    page = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    manifest = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0]
    assert json.loads(manifest)["name"] == "step-judge"
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "prm.json").write_text(manifest)
    (tmp_path / "store").mkdir()
    assert main(["publish", str(tmp_path / "source"), "--store", str(tmp_path / "store")]) == 0
    assert main(["show", "step-judge", "--store", str(tmp_path / "store")]) == 0
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
