"""A started batcher, and requests to it."""

import asyncio
from collections.abc import AsyncIterator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from service.engine.contract import Engine
from service.queue.batcher import Batcher
from service.queue.terms import Terms
from service.queue.work import Answer
from tests.service.echo_app import PATIENCE
from tests.service.null_observer import NullObserver

Sequences = list[list[int]]


@asynccontextmanager
async def batching(
    engine: Engine,
    *,
    max_batch_tokens: int = 100,
    max_queue_tokens: int = 1000,
    max_wait: float = 0.0,
    in_pieces: bool = False,
) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as thread:
        batcher = Batcher(
            engine,
            thread,
            max_batch_tokens=max_batch_tokens,
            max_queue_tokens=max_queue_tokens,
            max_wait=max_wait,
            in_pieces=in_pieces,
            observer=NullObserver(),
        )
        batcher.start()
        try:
            async with asyncio.timeout(PATIENCE):
                yield batcher
        finally:
            await batcher.close()


def ends(token_ids: Sequences) -> Sequences:
    return [[len(ids) - 1] for ids in token_ids]


def unequal(token_ids: Sequence[object]) -> list[object]:
    """Keys that differ for every sequence, so that no other request answers it."""
    return [object() for _ in token_ids]


def submit(
    batcher: Batcher, *token_ids: list[int], keys: Sequence[Hashable] | None = None, **terms: Any
) -> asyncio.Task[Answer]:
    """Submits a request with these terms: ``caller``, ``priority``, ``deadline``."""
    work = batcher.prepare(token_ids, ends(list(token_ids)), keys or unequal(token_ids))
    return asyncio.create_task(batcher.submit(work, Terms(**terms)))


async def queued(batcher: Batcher, *token_ids: list[int], **options: Any) -> asyncio.Task[Answer]:
    """Submits a request and returns it once it is queued; ``options`` as for ``submit``."""
    task = submit(batcher, *token_ids, **options)
    await asyncio.sleep(0)
    return task
