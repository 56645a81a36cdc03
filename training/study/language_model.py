"""Trains SmolLM2-135M-Instruct as an AgentPRM on text rollouts of a world, beside an ORM and on fewer rollouts.

    make smollm2-base
    python -m training.study.language_model --world babyai

Every part is a command of ``python -m training`` that leaves files in the directory of the world. A part that is there
is not made again, and a training run that was killed goes on from its newest state. ``results.json`` has what is there.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from model_store.format.store import Store
from training.rollouts.reading import read
from training.study.floors import step_auc_bounds
from training.study.latency import ranking_latency

VERSION: Final = "1"
HELD_OUT: Final = 320  # rollouts
PLAYED_ON: Final = {"attempts-per-query": 8, "continuations": 8}
"""Options of the held-out rollouts: best-of-8 chooses among attempts, continuations are the ceiling of an AUC."""
TRAINING: Final = {"lora": 16, "epochs": 3, "tokens-per-update": 4096}
"""Options of every training run."""
SERVED: Final = 20  # held-out trajectories whose rankings are timed


@dataclass(frozen=True, slots=True)
class Run:
    """One training run: how steps are labelled, and from how many rollouts."""

    labels: str
    rollouts: int  # of which a fifth chooses the epoch or is held out by the training itself


RUNS: Final = {
    "td-gae": Run("td-gae", 560),
    "orm": Run("orm", 560),
    "td-gae-280": Run("td-gae", 280),
    "td-gae-140": Run("td-gae", 140),
}
"""The main run, the outcome model beside it, and the points of the curve against the number of rollouts."""

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)


@app.command()
def main(
    *,
    world: Annotated[Literal["babyai", "textcraft-words"], typer.Option(help="World that the rollouts come from.")],
    runs: Annotated[list[str] | None, typer.Option("--run", help=f"Runs, of {', '.join(RUNS)}. Default: all.")] = None,
    base: Annotated[Path, typer.Option(help="Base model.")] = Path("runs/bases/smollm2-135m-instruct"),
    directory: Annotated[Path, typer.Option(help="Directory for everything that is made.")] = Path("runs/study"),
) -> None:
    """Train and measure the runs that are not there yet, and write results.json."""
    if unknown := sorted({*(runs or ())} - RUNS.keys()):
        raise typer.BadParameter(f"there is no run {unknown[0]!r}; there are {', '.join(RUNS)}")
    study = Study(directory / world, world, base)
    for name in runs or RUNS:
        study.train(name)
        study.measure(name)
        study.write_results()


@dataclass(frozen=True, slots=True)
class Study:
    """The files of one world."""

    place: Path
    world: str
    base: Path

    def train(self, name: str) -> None:
        """Publishes the checkpoint of a run, as version 1 of the run's name."""
        if (self._store / name / VERSION).exists():
            return
        run = RUNS[name]
        self._training(
            "train",
            {"rollouts": self._rollouts("train", run.rollouts), "base": self.base, "labels": run.labels}
            | {"name": name, "version": VERSION, "store": self._store, "output": self.place / "states" / name}
            | TRAINING,
            "--resume",
        )

    def measure(self, name: str) -> None:
        """Writes the held-out evaluation of a run's checkpoint and how fast it is served."""
        held_out = self._rollouts("held-out", HELD_OUT)
        evaluation = self.place / f"{name}-evaluation.json"
        if not evaluation.exists():
            self._training(
                "evaluate", {"rollouts": held_out, "store": self._store, "json": evaluation}, f"{name}@{VERSION}"
            )
        latency = self.place / f"{name}-latency.json"
        if not latency.exists():
            _write(latency, ranking_latency(self._store, f"{name}@{VERSION}", read([held_out]).whole()[:SERVED]))

    def write_results(self) -> None:
        """Writes ``results.json``: the bounds that the rollouts set, and every run that is measured."""
        train, held_out = (self._rollouts("train", RUNS["td-gae"].rollouts), self._rollouts("held-out", HELD_OUT))
        bounds = step_auc_bounds(read([train]).whole(), read([held_out]).whole())
        measured = [name for name in RUNS if (self.place / f"{name}-latency.json").exists()]
        _write(
            self.place / "results.json",
            {
                "world": self.world,
                "step AUC bounds": {name: interval._asdict() for name, interval in bounds.items()},
                "runs": {name: self._result(name) for name in measured},
            },
        )

    def _result(self, name: str) -> dict[str, Any]:
        return {
            "run": asdict(RUNS[name]),
            "training": Store(self._store).resolve(f"{name}@{VERSION}").manifest.training,
            "evaluation": json.loads((self.place / f"{name}-evaluation.json").read_text(encoding="utf-8")),
            "latency": json.loads((self.place / f"{name}-latency.json").read_text(encoding="utf-8")),
        }

    @property
    def _store(self) -> Path:
        return self.place / "checkpoints"

    def _rollouts(self, split: str, count: int) -> Path:
        """Returns the file of so many rollouts, after it is made. A longer file starts with the shorter one."""
        path = self.place / f"{split}-{count}.jsonl"
        if not path.exists():
            options: dict[str, object] = {"environment": self.world, "split": split, "count": count, "out": path}
            self._training("rollouts", options | (PLAYED_ON if split == "held-out" else {}))
        return path

    def _training(self, command: str, options: Mapping[str, object], *more: str) -> None:
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-m", "training", command, *more, *arguments], check=True)  # noqa: S603


def _write(path: Path, content: Any) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    app(prog_name="python -m training.study.language_model")
