"""Imported families behind the service's own routes, several in one service."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from tests.model_store.authors import FAMILIES, STEPS, TASK
from tests.model_store.importers.over_http import results, serving

SERVED = {
    "padded": "Llama 3 classifier whose padding ends turns",
    "separated": "TRL with another separator",
    "rlhflow": "RLHFlow",
    "versaprm": "VersaPRM",
    "openr": "OpenR",
    "reasonflux": "ReasonFlux",
}


def publish(tmp_path: Path) -> dict[str, list[float]]:
    """Imports the families; returns the authors' promises of every step."""
    expected = {}
    for name, title in SERVED.items():
        family, source = FAMILIES[title], tmp_path / name
        tokenizer = family.make(source)
        preset = None if family.recognised else family.preset
        add_checkpoint(Store(tmp_path / "store"), source, ImportOptions(name, "1", preset=preset, **family.options))
        expected[name] = family.promises(source, tokenizer, TASK, STEPS)
    return expected


def test_imported_families_score_over_http_as_their_authors_code(tmp_path: Path) -> None:
    expected = publish(tmp_path)

    async def scenario() -> None:
        async with serving(tmp_path / "store", tuple(SERVED)) as client:
            for name, promises in [*expected.items()] * 2:  # cold, then warm
                await assert_scored(client, name, promises)

    asyncio.run(scenario())


async def assert_scored(client: httpx.AsyncClient, model: str, promises: Sequence[float]) -> None:
    steps = [{"observation": "", "action": step} for step in STEPS]
    last: dict[str, Any] = {"task": TASK, "steps": steps}
    (scored,) = await results(client, "/score_trajectory", model, [last])
    assert [step["promise"] for step in scored["steps"]] == pytest.approx(promises, abs=1e-5), model
    (stepped,) = await results(client, "/score_step", model, [last])
    assert stepped["promise"] == pytest.approx(promises[-1], abs=1e-5)
    proposed = {"task": TASK, "steps": steps[:-1], "observation": "", "candidates": ["So", STEPS[-1]]}
    (ranked,) = await results(client, "/rank_actions", model, [proposed])
    found = {row["index"]: row["promise"] for row in ranked["ranking"]}
    assert found[1] == pytest.approx(promises[-1], abs=1e-5)
