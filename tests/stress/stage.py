"""Setup of a chaos run: a store with two versions of the demo checkpoint, keys, a Redis and the requests."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import safetensors.torch

from model_store.format.store import Store
from service.access.api_keys import new_key
from service.settings import CHECKPOINTS, Settings
from testbed.redis import KEEPS_NOTHING, RedisServer, find_valkey
from tests.stress.expected import Oracle, grow_forest
from tests.stress.generator import vocabulary
from tests.stress.mixture import Mixture

NAME: Final = "textcraft-demo"
OTHER_MODEL: Final = "textcraft-demo-orm@1"
OTHER_HEAD: Final = 0.8
"""Factor of the second version's head, which makes a score of the wrong version visible."""


class Stage:
    """Setup of a run. ``versions`` are references, of which the first is served at the start; ``digests`` theirs."""

    def __init__(self, directory: Path, *, trajectories: int, seed: int) -> None:
        self.store = Store(directory / "store")
        self.versions = (f"{NAME}@1", f"{NAME}@2")
        _publish_two_versions(self.store)
        checkpoints = [self.store.resolve(reference) for reference in self.versions]
        self.digests = {checkpoint.manifest.reference: checkpoint.manifest.digest for checkpoint in checkpoints}
        keys = directory / "keys"
        self.admin_key, *score_keys = _write_keys(keys)
        forest = grow_forest(Random(seed), vocabulary(), trajectories)
        self.oracle = Oracle(forest, checkpoints)
        self.mixture = Mixture(forest, score_keys, self.versions, seed)
        self.redis = RedisServer(str(find_valkey()), directory, *KEEPS_NOTHING)
        self.settings = Settings(
            model_store=self.store.root,
            device="cpu",
            cpu_threads=1,
            redis_url=self.redis.url,
            api_keys_file=keys,
            # Small limits, so that each is reached, and a short TTL, so that scores are computed again.
            score_cache_items=100,
            score_cache_ttl_seconds=1,
            prefix_cache_bytes=2 * 1024**2,
            max_batch_tokens=256,
            max_queue_tokens=3500,
        )


def _publish_two_versions(store: Store) -> None:
    shutil.copytree(CHECKPOINTS, store.root)
    first = store.resolve(f"{NAME}@1")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "checkpoint"
        shutil.copytree(first.path, source)
        weights = safetensors.torch.load_file(source / "model.safetensors")
        weights["score.weight"] *= OTHER_HEAD
        safetensors.torch.save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
        store.publish(source, replace(first.manifest, version="2"))
    store.set_alias("demo", f"{NAME}@1")


def _write_keys(path: Path) -> list[str]:
    """Writes three keys and returns them: one with every scope, then two that may only score."""
    tokens, lines = [], []
    for name, scopes in (("operator", "score,admin"), ("agents", "score"), ("trainers", "score")):
        token, line = new_key(name)
        tokens.append(token)
        lines.append(f"{name} {scopes} {line.split()[-1]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tokens
