"""A soak test: many callers on the real batcher and engine, while forwards fail, callers give up and the cache empties.

    python -m tests.service.engine.soak --seconds 60

Every answer is compared with naive scores. At the end every request has been answered, nothing is locked or queued,
the cache is within its limit, and new requests are scored right.
"""

import argparse
import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import torch
from transformers import Qwen2Config

from agentprm.errors import InternalError, Overloaded
from service.engine.contract import SequenceScores
from service.engine.prefix_engine import PrefixEngine
from service.queue.batcher import Batcher
from service.queue.fair_queue import Priority
from service.queue.terms import Terms
from service.queue.work import Answer
from tests.service.engine.sharp_models import CACHED_BYTES, naive_scores, sharp_model
from tests.service.null_observer import NullObserver

CALLERS = 12
PATIENCE = 30.0
Tokens = tuple[int, ...]


class ForwardFailed(Exception):
    pass


class UnreliableEngine:
    """A prefix engine whose forwards fail now and then, and whose cache is emptied or given another limit."""

    def __init__(self, engine: PrefixEngine, random: Random) -> None:
        self._engine = engine
        self._random = random
        self.reliable = False
        self.extend_lens = engine.extend_lens

    def score(self, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]]) -> list[SequenceScores]:
        if self._random.random() < 0.02:
            self._engine.prefix_cache.clear()
        self._engine.prefix_cache.max_bytes = self._random.choice((0, 60, 150, 400)) * CACHED_BYTES
        return self._engine.score(token_ids, reads)

    def fail_sometimes(self, *_: object) -> None:
        """Fails as a hook before a layer, when the cache has locked, split and partly filled the nodes of the batch."""
        if not self.reliable and self._random.random() < 0.04:
            raise ForwardFailed


class Soak:
    """One run; ``outcomes`` counts the requests by outcome."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        model = sharp_model(Qwen2Config)
        self._trajectories = _forest(self._random)
        self._expected = {tokens: naive_scores(model, tokens) for tokens in self._trajectories}
        self._engine = PrefixEngine(model, cache_bytes=0, context_length=64)
        self._engine.row_tokens = 16
        self._unreliable = UnreliableEngine(self._engine, Random(seed + 1))
        model.backbone.get_submodule("layers.1").register_forward_pre_hook(self._unreliable.fail_sometimes)
        self.outcomes: Counter[str] = Counter()

    async def run(self, more: Callable[[int], bool]) -> None:
        """Sends requests while ``more(number sent)`` is true, then checks that nothing is left behind."""
        with ThreadPoolExecutor(1) as engine_thread, ThreadPoolExecutor(1) as tokenizer_thread:
            batcher = Batcher(
                self._unreliable, engine_thread, max_batch_tokens=40, max_queue_tokens=500, observer=NullObserver()
            )
            batcher.start()
            sent = 0
            async with asyncio.TaskGroup() as callers:

                async def call() -> None:
                    nonlocal sent
                    while more(sent):
                        sent += 1
                        self.outcomes[await self._request(batcher, tokenizer_thread)] += 1

                for _ in range(CALLERS):
                    callers.create_task(call())
            assert self.outcomes.total() == sent
            await self._assert_unharmed(batcher, tokenizer_thread)
            await asyncio.wait_for(batcher.close(), PATIENCE)

    async def _request(self, batcher: Batcher, tokenizer_thread: ThreadPoolExecutor) -> str:
        """Requests some trajectories, each up to some token; one caller in five gives up early."""
        whole = self._random.choices(self._trajectories, k=self._random.choice((1, 1, 2, 6)))
        token_ids = [tokens[: self._random.randint(1, len(tokens))] for tokens in whole]
        seconds = self._random.choice((PATIENCE, PATIENCE, PATIENCE, PATIENCE, 0.02 * self._random.random()))
        try:
            async with asyncio.timeout(seconds):
                answer = await self._submit(batcher, tokenizer_thread, token_ids)
        except TimeoutError:
            assert seconds < PATIENCE, "a request was never answered"
            return "given up"
        except InternalError:
            return "failed"
        except Overloaded:
            await asyncio.sleep(0.005)
            return "refused"
        self._assert_right(answer, whole, token_ids)
        return "scored"

    async def _submit(self, batcher: Batcher, tokenizer_thread: ThreadPoolExecutor, token_ids: list[Tokens]) -> Answer:
        """Measures on another thread, while a forward may change the tree, then submits."""
        reads = [range(len(tokens)) for tokens in token_ids]
        work = await asyncio.get_running_loop().run_in_executor(
            tokenizer_thread, batcher.prepare, token_ids, reads, [object() for _ in reads]
        )
        return await batcher.submit(work, Terms(self._random.choice("abc"), self._random.choice([*Priority])))

    def _assert_right(self, answer: Answer, whole: list[Tokens], token_ids: list[Tokens]) -> None:
        for raw, reused, tokens, prefix in zip(answer.raw, answer.reused, whole, token_ids, strict=True):
            expected = self._expected[tokens][: len(prefix)]
            assert 0 <= reused <= len(prefix)
            torch.testing.assert_close(raw, expected, atol=4e-5, rtol=0)

    async def _assert_unharmed(self, batcher: Batcher, tokenizer_thread: ThreadPoolExecutor) -> None:
        self._unreliable.reliable = True
        whole = list(self._trajectories)
        async with asyncio.timeout(PATIENCE):
            for tokens in whole:
                self._assert_right(await self._submit(batcher, tokenizer_thread, [tokens]), [tokens], [tokens])
        cache = self._engine.prefix_cache
        cache.check()
        assert batcher.alive
        assert batcher.queued_tokens == 0
        assert cache.pending() == []
        assert all(node.locks == 0 for node in cache.root.children.values()), "locked, but not in use"
        assert cache.used_bytes <= cache.max_bytes
        cache.clear()
        assert cache.used_bytes == 0


def _forest(random: Random) -> list[Tokens]:
    """Returns trajectories that part at every depth. Some are unrelated, and some are longer than a batch may be."""
    grown: list[Tokens] = [()]
    while len(grown) < 24:
        parent = random.choice(grown)
        kept = parent[: random.randint(0, len(parent))]
        grown.append((*kept, *(random.randrange(50) for _ in range(random.randint(1, 64 - min(63, len(kept)))))))
    return [tokens[:64] for tokens in grown if tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description="Soaks the batcher and the engine.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = time.time_ns() % 10**6 if options.seed is None else options.seed
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    soak = Soak(seed)
    ends = time.monotonic() + options.seconds
    print(f"seed {seed}")
    asyncio.run(soak.run(lambda _: time.monotonic() < ends))
    print(dict(soak.outcomes))


if __name__ == "__main__":
    main()
