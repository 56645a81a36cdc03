"""A hundred scrapes at once cost one rendering, and each sees all that happened before it."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest

from service.http.exposition import SharedExposition


def test_scrapes_at_once_share_a_rendering() -> None:
    renderings = count(1)

    async def scrape() -> list[bytes]:
        exposition = SharedExposition(lambda: b"%d" % next(renderings))
        return await asyncio.gather(*(exposition() for _ in range(100)))

    assert asyncio.run(scrape()) == [b"1"] * 100


def test_a_scrape_sees_what_happened_before_it() -> None:
    happened = [b"first"]

    async def scrape() -> list[bytes]:
        exposition = SharedExposition(lambda: happened[-1])
        early = asyncio.create_task(exposition())
        seen = [await exposition()]
        happened.append(b"second")
        return [*seen, await exposition(), await early]

    assert asyncio.run(scrape()) == [b"first", b"second", b"first"]


def test_a_scrape_that_leaves_takes_nothing_from_the_others() -> None:
    async def scrape() -> bytes:
        exposition = SharedExposition(lambda: b"text")
        leaving, staying = asyncio.create_task(exposition()), asyncio.create_task(exposition())
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(scrape()) == b"text"


def test_after_a_rendering_that_fails_the_next_one_is_tried() -> None:
    texts: Iterator[bytes | Exception] = iter([ValueError("no"), b"text"])

    def render() -> bytes:
        text = next(texts)
        if isinstance(text, Exception):
            raise text
        return text

    async def scrape() -> bytes:
        exposition = SharedExposition(render)
        with pytest.raises(ValueError, match="no"):
            await exposition()
        return await exposition()

    assert asyncio.run(scrape()) == b"text"
