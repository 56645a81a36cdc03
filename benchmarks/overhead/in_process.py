"""Requests to the ASGI application in this process, with or without a model's forward."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import quantiles
from typing import Any, Final

from fastapi import FastAPI

from benchmarks.workloads.requests import Load, rank_load, step_load
from service.engine.echo import EchoEngine
from service.models.load import LoadedModel

KNOWN_TIMES: Final = 100
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request.

    ``load`` makes the requests of a round from a seed. ``known`` repeats one request whose scores are cached. Without
    ``forward`` the engine answers at once.
    """

    name: str
    load: Callable[[str], Load]
    known: bool = False
    forward: bool = True


CASES: Final = (
    Case("rank 8 over a new 256-token history", partial(rank_load, 8, 256, 8)),
    Case("a new step of 30-480 tokens", partial(step_load, 16, 30, 480)),
    Case("the same, forward free", partial(step_load, 50, 30, 480), forward=False),
    Case("rank 16, all known", partial(rank_load, 1, 1024, 16), known=True),
    Case("rank 64, all known", partial(rank_load, 1, 1024, 64), known=True),
    Case("a step of 30 tokens, known", partial(step_load, 1, 30, 30), known=True),
)


async def ask(app: FastAPI, method: str, path: str, content: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Sends one request to the application.

    Raises:
        RuntimeError: it is not answered with 200.
    """
    unread: list[Message] = [{"type": "http.request", "body": content}]
    statuses: list[int] = []

    async def receive() -> Message:
        return unread.pop() if unread else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers], "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    if statuses != [200]:
        raise RuntimeError(f"{path} answered {statuses}")


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Returns ``q1``, ``median`` and ``q3``."""
    return dict(zip(("q1", "median", "q3"), quantiles(values, n=4), strict=True))


def without_forward(model: LoadedModel) -> LoadedModel:
    """Returns the model with an engine that answers at once."""
    return replace(model, engine=EchoEngine(), prefix_cache=None)
