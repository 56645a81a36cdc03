"""Odd but real chats get the score of the same chat without its oddities, or a sentence with the place."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.service.echo_app import serving
from tests.service.http.chats.odd_chats_of_libraries import CALLS_AND_RESULTS, OTHER_APIS
from tests.service.http.chats.odd_chats_of_servers import GATEWAYS, OPENAI
from tests.service.http.chats.shapes import OTHER, SAME, OddChat, item_of
from tests.service.http.chats.telling_engine import TellingEngine

ODD_CHATS = [*OPENAI, *GATEWAYS, *OTHER_APIS, *CALLS_AND_RESULTS]
CHATS = Path(__file__).parents[4] / "docs" / "chats.md"
JSON = {"content-type": "application/json"}
HEAD = ("from", "what is odd", "answer")
Ask = Callable[[bytes], httpx.Response]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with asyncio.Runner() as runner:
        service = AsyncExitStack()
        client = runner.run(service.enter_async_context(serving(TellingEngine())))
        yield lambda body: runner.run(client.post("/score_step", content=body, headers=JSON))
        runner.run(service.aclose())


@pytest.mark.parametrize("odd", ODD_CHATS, ids=str)
def test_an_odd_chat_gets_the_answer_of_the_table(ask: Ask, odd: OddChat) -> None:
    reply = ask(item_of(odd.messages, odd.tools))
    if odd.answer in (SAME, OTHER):
        assert reply.status_code == 200, reply.text
        same = raw(reply) == raw(ask(item_of(odd.plain)))
        assert same == (odd.answer == SAME)
    else:
        assert reply.status_code == 422
        assert reply.json()["error"]["message"] == odd.answer


def raw(reply: httpx.Response) -> float:
    score: float = reply.json()["results"][0]["raw"]
    return score


def test_the_documentation_shows_every_odd_chat() -> None:
    table = CHATS.read_text(encoding="utf-8").partition("## Odd chats\n")[2].partition("\n\n| ")[2].partition("\n\n")[0]
    rows = [HEAD, ("---",) * len(HEAD), *map(row, ODD_CHATS)]
    assert f"| {table}".rstrip("\n") == "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(odd: OddChat) -> tuple[str, str, str]:
    return odd.source, odd.oddity, odd.answer if odd.answer in (SAME, OTHER) else f"422 `{odd.answer}`"
