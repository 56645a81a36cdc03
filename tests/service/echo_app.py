"""The whole service around the echo engine: a byte tokenizer, no weights, and a gate to hold a forward with."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model_store.manifest import Manifest, ScoreRecipe, Template
from model_store.render import Renderer
from service.app import LoadedModel, create_app
from service.batcher import Engine
from service.echo import EchoEngine
from service.settings import Settings

MANIFEST = Manifest(
    format=1,
    name="echo",
    version="1",
    base_model="none",
    score=ScoreRecipe("linear", "sigmoid", "action_end"),
    template=Template("<s>", ("<task>", "</task>"), ("<obs>", "</obs>"), ("<act>", "</act>")),
    render_version=1,
    dtype="float32",
    context_length=2000,
    training={"gamma": 0.99},
    evaluation={},
    digest="sha256:0",
)
PATIENCE = 10  # seconds; only a test that fails waits so long


def byte_renderer() -> Renderer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<task>", "</task>", "<obs>", "</obs>", "<act>", "</act>"])
    return Renderer(tokenizer, MANIFEST.template)


class GatedEngine(EchoEngine):
    """Echoes, but only while the gate is open; remembers what it was asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[list[list[int]]] = []
        self._entered = threading.Semaphore(0)

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        self.calls.append([list(ids) for ids in token_ids])
        self._entered.release()
        assert self.gate.wait(PATIENCE)
        return super().score(token_ids, reads)

    async def entered(self) -> None:
        """Returns once per forward that has begun."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The next forward begins and does not end; forwards before it are not counted."""
        while self._entered.acquire(blocking=False):
            pass
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class ThreadDied(BaseException):
    """What no engine may raise."""


class BrokenEngine(EchoEngine):
    """Raises while ``failure`` is set."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[list[float]]:
        if self.failure is not None:
            raise self.failure
        return super().score(token_ids, reads)


def loaded(engine: Engine, name: str = "echo", aliases: tuple[str, ...] = ("demo",)) -> LoadedModel:
    fields = {field: getattr(MANIFEST, field) for field in MANIFEST.__slots__} | {"name": name}
    return LoadedModel(Manifest(**fields), aliases, byte_renderer(), engine, device="cpu", dtype="float32")


@asynccontextmanager
async def serving(*engines: Engine | LoadedModel, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started service; a bare engine is served as the model ``echo``."""
    models = [one if isinstance(one, LoadedModel) else loaded(one) for one in engines or [EchoEngine()]]
    app = create_app(models, Settings(**settings))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://echo") as client,
    ):
        yield client


def item(task: str = "Craft.", *actions: str, **more: Any) -> dict[str, Any]:
    steps = [{"observation": f"saw {index}", "action": action} for index, action in enumerate(actions or ("look",))]
    return {"task": task, "steps": steps, **more}


def proposal(*candidates: Any, **more: Any) -> dict[str, Any]:
    return {**item("Craft.", "look"), "observation": "a table", "candidates": list(candidates), **more}
