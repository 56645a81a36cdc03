"""The whole service around the echo engine: a byte tokenizer, no weights, and a gate to hold a forward with."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from model_store.format.manifest import Manifest
from model_store.format.recipe import ScoreRecipe
from model_store.format.template import Template
from model_store.text.renderer import Renderer
from service.app import create_app
from service.engine.contract import Engine, SequenceScores
from service.engine.echo import EchoEngine
from service.engine.prefix_cache import PrefixCache
from service.models.load import Loaded, LoadedJudge, LoadedModel
from service.settings import Settings
from service.tracing import open_tracing

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
ALIASES = {"demo": "echo@1"}
PATIENCE = 30  # seconds; only a test that fails waits so long
LONGEST = 90.0
"""Seconds that a test may use one service. Shorter than the limit of a test, whose report says less."""


def byte_renderer() -> Renderer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<task>", "</task>", "<obs>", "</obs>", "<act>", "</act>"])
    return Renderer(tokenizer, MANIFEST.texts)


class GatedEngine(EchoEngine):
    """Echoes, but only while the gate is open. ``calls`` has the token ids of each call."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[list[list[int]]] = []
        self._entered = threading.Semaphore(0)

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        self.calls.append([list(ids) for ids in token_ids])
        self._entered.release()
        assert self.gate.wait(PATIENCE)
        return super().score(token_ids, reads)

    async def entered(self) -> None:
        """Waits until the next forward has begun; each forward counts once."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Holds the next forward until the block ends. Forwards before it are not counted by ``entered``."""
        while self._entered.acquire(blocking=False):
            pass
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()


class PrefixEchoEngine(GatedEngine):
    """Echoes and keeps a number of tokens in the real prefix cache; ``computed`` has the tokens of each call."""

    def __init__(self, max_tokens: int) -> None:
        super().__init__()
        self.prefix_cache: PrefixCache[range] = PrefixCache(
            max_tokens, size=len, split=lambda tokens, at: (tokens[:at], tokens[at:])
        )
        self.computed: list[int] = []

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        scores = super().score(token_ids, reads)
        computed = self.extend_lens(token_ids)
        leaves = [self.prefix_cache.insert(ids) for ids in token_ids]
        for node in self.prefix_cache.pending():
            self.prefix_cache.fill(node, range(len(node.token_ids)))
        for leaf in leaves:
            self.prefix_cache.release(leaf)
        self.prefix_cache.evict()
        self.computed.append(sum(computed))
        return [SequenceScores(score.raw, new) for score, new in zip(scores, computed, strict=True)]

    def extend_lens(self, token_ids: Sequence[Sequence[int]]) -> list[int]:
        lens: list[int] = []
        before: Sequence[int] = ()
        for ids in token_ids:
            lens.append(len(ids) - max(_shared_len(before, ids), self.prefix_cache.match(ids)))
            before = ids
        return lens


def _shared_len(left: Sequence[int], right: Sequence[int]) -> int:
    return next(
        (at for at, (token, other) in enumerate(zip(left, right, strict=False)) if token != other),
        min(len(left), len(right)),
    )


class ThreadDied(BaseException):
    """An exception that no engine may raise."""


class BrokenEngine(EchoEngine):
    """Raises while ``failure`` is set."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        if self.failure is not None:
            raise self.failure
        return super().score(token_ids, reads)


@dataclass
class FakeWorkers:
    running: int = 1
    down: int = 0
    restarts: int = 0
    lost: bool = False


class WorkersEngine(BrokenEngine):
    """An engine of worker processes, without the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = FakeWorkers()


def loaded(engine: Engine, name: str = "echo") -> LoadedModel:
    """A loaded model around an engine. Other names have other digests."""
    digest = MANIFEST.digest if name == MANIFEST.name else f"sha256:{name}"
    return LoadedModel(
        replace(MANIFEST, name=name, digest=digest),
        byte_renderer(),
        engine,
        engine.prefix_cache if isinstance(engine, PrefixEchoEngine) else None,
        row_tokens=512,
        device="cpu",
        dtype="float32",
        workers=engine.workers if isinstance(engine, WorkersEngine) else None,
    )


@asynccontextmanager
async def serving(
    *engines: Engine | Loaded, aliases: Mapping[str, str] = ALIASES, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started service; a bare engine is served as the model ``echo``.

    Raises:
        TimeoutError: what is done with it has not ended after ``LONGEST``.
    """
    models = [
        engine if isinstance(engine, LoadedModel | LoadedJudge) else loaded(engine)
        for engine in engines or [EchoEngine()]
    ]
    # Repeated texts are computed again unless a test asks for the score cache.
    chosen = Settings(**{"score_cache_items": 0, **settings})
    app = create_app(models, chosen, aliases=aliases, tracing=open_tracing(chosen.otel))
    transport = httpx.ASGITransport(app)
    async with (
        asyncio.timeout(LONGEST),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://echo") as client,
    ):
        yield client


def item(task: str = "Craft.", *actions: str, **more: Any) -> dict[str, Any]:
    steps = [{"observation": f"saw {index}", "action": action} for index, action in enumerate(actions or ("look",))]
    return {"task": task, "steps": steps, **more}


def proposal(*candidates: Any, **more: Any) -> dict[str, Any]:
    return {**item("Craft.", "look"), "observation": "a table", "candidates": list(candidates), **more}


def pass_time(seconds: float) -> None:
    """Moves the running loop's clock forward: timers due within ``seconds`` are due now."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


async def metric(client: httpx.AsyncClient, sample: str) -> float:
    """The value of a sample, as it is written in ``/metrics``."""
    text = (await client.get("/metrics")).text
    return next(float(line.removeprefix(sample)) for line in text.splitlines() if line.startswith(f"{sample} "))
