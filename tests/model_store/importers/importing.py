"""Steps that the tests of imports share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from agentprm.types import Step, Trajectory
from model_store.errors import CheckpointError
from model_store.format.store import Checkpoint, Store
from model_store.importers.importer import Imported, ImportOptions, add_checkpoint
from model_store.text.loading import render, renderer_of
from service.engine.selection import load_engine
from tests.model_store.authors import TASK
from tests.model_store.tiny_checkpoints import weights_of


def add(store: Store, source: Path, base: Path | None = None, **wanted: Any) -> Imported:
    return add_checkpoint(store, source, ImportOptions("foreign", "1", **wanted), base)


def refused(store: Store, source: Path, message: str, base: Path | None = None, **wanted: Any) -> None:
    """Asserts that it is refused in one sentence and leaves nothing behind."""
    with pytest.raises(CheckpointError, match=message) as error:
        add(store, source, base, **wanted)
    assert "\n" not in str(error.value)
    assert not store.root.exists() or list(store.root.iterdir()) == []


def shard(path: Path, files: int = 3) -> None:
    weights = weights_of(path)
    (path / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number in range(files):
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        part = dict(sorted(weights.items())[number::files])
        save_file(part, path / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def served_promises(checkpoint: Checkpoint, steps: Sequence[str]) -> list[float]:
    """Promises of all steps of ``TASK``, as the service computes them: at once, and each alone and in company, warm."""
    renderer = renderer_of(checkpoint)
    rows = render(renderer, Trajectory(TASK, tuple(Step("", step) for step in steps)))
    engine = load_engine(checkpoint, "cpu", "auto", prefix_cache_bytes=2**30, cpu_threads=1)
    scores = [raw for one in engine.score(*zip(*rows, strict=True)) for raw in one.raw]
    prefixes = [row.token_ids[: end + 1] for row in rows for end in row.reads]
    in_company = engine.score(prefixes, [[len(prefix) - 1] for prefix in prefixes])
    (alone,) = engine.score(prefixes[:1], [[len(prefixes[0]) - 1]])
    assert [one.raw[0] for one in in_company] == pytest.approx(scores, abs=1e-5)
    assert alone.raw == pytest.approx(scores[:1], abs=1e-5)
    return list(map(checkpoint.manifest.score.promise, scores))


def write_recipe(path: Path, score: dict[str, Any], template: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"score": score, "template": template}))
    return path


LINES = {"begin": "", "task": ["", "\n"], "observation": ["", "\n"], "action": ["", "\n"]}
