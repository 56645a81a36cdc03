"""White space at the ends of tasks and steps, as the authors' code trims it or leaves it."""

from pathlib import Path

import pytest

from agentprm.types import Step, Trajectory
from model_store.format.store import Store
from model_store.importers.importer import ImportOptions, add_checkpoint
from model_store.network.model import load_model, score_rows
from model_store.text.renderer import load_renderer
from model_store.text.runs import Unrenderable
from tests.model_store.authors import FAMILIES
from tests.model_store.importers.importing import add

TASKS = ("She eats.", "  She eats. ", "She eats.\n", "\n\nShe eats three\n\n", "She eats  ", "\tShe eats \n ")
STEPS = ((" left.", "13\n"), ("16 - 3", "  "), ("\nleft\n", "\n\n13 eggs.\n\n"))


@pytest.mark.parametrize("name", ["RLHFlow", "VersaPRM", "Qwen-PRM800K", "OpenR"])
def test_white_space_is_trimmed_as_the_authors_trim_it(name: str, tmp_path: Path) -> None:
    family, source = FAMILIES[name], tmp_path / "source"
    tokenizer = family.make(source)
    wanted = ImportOptions("foreign", "1", preset=family.preset)
    checkpoint = add_checkpoint(Store(tmp_path / "store"), source, wanted).checkpoint
    renderer, model, promise = (
        load_renderer(checkpoint),
        load_model(checkpoint, "cpu", "auto"),
        checkpoint.manifest.score,
    )
    for task in TASKS:
        for steps in STEPS:
            said = [step for step in steps if step.strip()]
            rendered = renderer.trajectory(Trajectory(task, tuple(Step("", step) for step in said)))
            (raw,) = score_rows(model, [rendered.token_ids], [rendered.step_ends])
            expected = family.promises(source, tokenizer, task, said)
            assert list(map(promise.promise, raw)) == pytest.approx(expected, abs=1e-5), (task, steps)


@pytest.mark.parametrize("name", ["RLHFlow", "VersaPRM", "OpenR"])
def test_a_step_without_text_has_no_score_in_these_families(name: str, store: Store, tmp_path: Path) -> None:
    family = FAMILIES[name]
    family.make(tmp_path / "source")
    renderer = load_renderer(add(store, tmp_path / "source", preset=family.preset).checkpoint)
    with pytest.raises(Unrenderable, match="an action is empty"):
        renderer.trajectory(Trajectory("t", (Step("", " \n"),)))
