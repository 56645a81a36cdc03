"""Every family, imported and served the usual way, scores as its authors' code does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentprm.types import State, Step, Trajectory
from model_store.errors import CheckpointError
from model_store.format.store import Store
from model_store.importers.importer import Imported, ImportOptions, add_checkpoint
from model_store.text.loading import renderer_of
from model_store.text.renderer import Renderer
from service.engine.selection import load_engine
from tests.model_store.authors import FAMILIES, STEPS, TASK
from tests.model_store.family import Family
from tests.model_store.scored import scored

OTHER = ("She has 16 - 3 eggs", "наверно", "So 13")


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


def imported(tmp_path: Path, preset: str | None, **options: Any) -> Imported:
    wanted = ImportOptions("foreign", "1", preset=preset, **options)
    return add_checkpoint(Store(tmp_path / "store"), tmp_path / "source", wanted)


def trajectory(steps: Sequence[str]) -> Trajectory:
    return Trajectory(TASK, tuple(Step("", step) for step in steps))


def test_every_step_scores_as_the_authors_code_does(family: Family, tmp_path: Path) -> None:
    """Scored alone and in a batch, cold and warm, all steps at once and each step as the last."""
    tokenizer = family.make(tmp_path / "source")
    expected = [family.promises(tmp_path / "source", tokenizer, TASK, steps) for steps in (STEPS, OTHER)]
    assert len({round(promise, 3) for promises in expected for promise in promises}) > 3, (
        "scores that can be told apart"
    )
    checkpoint = imported(tmp_path, None if family.recognised else family.preset, **family.options).checkpoint
    renderer, promise = renderer_of(checkpoint), checkpoint.manifest.score.promise
    engine = load_engine(checkpoint, "cpu", "auto", prefix_cache_bytes=2**30, cpu_threads=1)

    def assert_scored(steps: Sequence[Sequence[str]], wanted: Sequence[Sequence[float]]) -> None:
        for raw, promises in zip(scored(engine, renderer, list(map(trajectory, steps))), wanted, strict=True):
            assert list(map(promise, raw)) == pytest.approx(promises, abs=1e-5)

    assert_scored([STEPS], expected[:1])
    assert_scored([STEPS, OTHER], expected)
    assert_scored([OTHER, STEPS], expected[::-1])
    assert_scored([STEPS[: end + 1] for end in range(3)], [expected[0][: end + 1] for end in range(3)])
    if not isinstance(renderer, Renderer):
        return
    for end in range(3):
        before = renderer.state(State(TASK, trajectory(STEPS[:end]).steps))
        ids = before.token_ids + renderer.actions([STEPS[end]], before)[0]
        (scores,) = engine.score([ids], [[len(ids) - 1]])
        assert promise(scores.raw[0]) == pytest.approx(expected[0][end], abs=1e-5)


def test_a_family_is_recognised_by_its_files_where_they_tell(family: Family, tmp_path: Path) -> None:
    family.make(tmp_path / "source")
    if family.recognised:
        assert imported(tmp_path, None, **family.options).preset == family.preset
    else:
        with pytest.raises(CheckpointError, match=r"does not tell how it scores; name|--preset reasonflux-prm"):
            imported(tmp_path, None)
