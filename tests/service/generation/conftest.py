"""The text-generation server, started once and reset for each test, and judges that run on it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.format.judge import Judge, Turn
from model_store.format.recipe import ScoreRecipe
from service.models.load import LoadedJudge
from tests.service.echo_app import MANIFEST, PATIENCE, item, serving

ROOT = Path(__file__).parents[3]
PROMPT = "Task: {task}\nSo far: {history}\nNow: {observation}\nAction: {action}\nGood?"
CHAT = Judge(("Yes",), ("No",), messages=(Turn("system", "You judge."), Turn("user", PROMPT)), model="judge-8b")
TEXT = Judge(("Yes",), ("No",), text=PROMPT)
JUDGES = pytest.mark.parametrize("judge", [CHAT, TEXT], ids=["chat", "text"])


class Server:
    """Controls the server's process and reads its counts."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def answers_with(self, *answers: dict[str, Any]) -> None:
        """Scripts the answers to the next requests; later ones are answered as usual."""
        await self._post("/script", answers)

    async def recovers(self) -> None:
        """Makes it answer as usual again."""
        await self._post("/reset", {})

    async def happened(self, **least: int) -> dict[str, Any]:
        """Returns its counts once they are at least these."""
        return await self._post("/wait", least)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Leaves requests without an answer until the end of the block."""
        await self._post("/gate", body=False)
        try:
            yield
        finally:
            await self._post("/gate", body=True)

    async def _post(self, route: str, body: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE) as http:
            reply: dict[str, Any] = (await http.post(route, json=body)).json()
        return reply


@pytest.fixture
def server(process: Server) -> Server:
    httpx.post(f"{process.url}/reset", json={}).raise_for_status()
    return process


@pytest.fixture(scope="session")
def process() -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.service.generation.text_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield Server(f"http://127.0.0.1:{int(running.stdout.readline())}")
        finally:
            running.kill()


def loaded_judge(judge: Judge, name: str = "judge") -> LoadedJudge:
    score = ScoreRecipe("judge", "softmax", "verdict")
    return LoadedJudge(replace(MANIFEST, name=name, score=score, judge=judge, digest=f"sha256:{name}"))


@asynccontextmanager
async def judging(server: Server, judge: Judge = CHAT, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with one judge; its warm-up is the first request that the server sees."""
    async with serving(loaded_judge(judge), judge_url=server.url, **settings) as client:
        yield client


async def score(client: httpx.AsyncClient, *actions: str, **more: Any) -> httpx.Response:
    return await client.post("/score_step", json={"items": [item("Craft.", *actions)], **more})
