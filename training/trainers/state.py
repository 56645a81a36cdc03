"""Resumable states of a training run: safetensors and JSON, complete or not there at all.

A state is a directory ``state-<updates>``. It is written under another name and renamed when it is whole, and only then
are older ones removed. No random state is part of it: dropout is off, and the order of the data follows from the seed.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agentprm.errors import AgentPRMError

PROGRESS: Final = "progress.json"
WEIGHTS: Final = "weights.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
BEST: Final = "best.safetensors"
"""The trained weights of the epoch with the best AUC, where an epoch was measured."""


@dataclass(slots=True)
class Progress:
    """How far a run has come. ``measured`` has the AUC on the validation queries after each epoch."""

    updates: int = 0
    losses: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """The index of the last epoch with the highest AUC: on few queries many tie, and later ones know more."""
        return max(range(len(self.measured)), key=lambda epoch: (self.measured[epoch], epoch), default=None)

    def epochs_without_gain(self) -> int:
        """Epochs since the best."""
        best = self.best_epoch
        return 0 if best is None else len(self.measured) - 1 - best


class States:
    """The states in a directory. ``identity`` says what is trained on what: a state of anything else is refused."""

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory = directory
        self._identity = json.loads(json.dumps(identity))

    def newest(self) -> Path | None:
        """Returns the newest whole state."""
        return max(self.directory.glob("state-*"), key=lambda path: path.name, default=None)

    def save(
        self, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, best: Mapping[str, Tensor] | None
    ) -> None:
        """Writes a state and removes the one before.

        Raises:
            AgentPRMError: it cannot be written; the state before is kept.
        """
        draft = self.directory / f".draft-{os.getpid()}"
        before = self.newest()
        whole = self.directory / f"state-{progress.updates:08d}"
        try:
            draft.mkdir(parents=True, exist_ok=True)
            save_file(trained_weights(model), draft / WEIGHTS)
            save_file(_moments(model, optimizer), draft / OPTIMIZER)
            if best is not None:
                save_file(dict(best), draft / BEST)
            document = {"identity": self._identity, "progress": asdict(progress)}
            (draft / PROGRESS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            _sync(draft)
            if whole.exists():
                shutil.rmtree(whole)
            draft.rename(whole)
        except (OSError, SafetensorError) as error:
            kept = f"; {before} is kept" if before else ""
            raise AgentPRMError(f"the state of update {progress.updates} cannot be written: {error}{kept}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        if before and before != whole:
            shutil.rmtree(before)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor] | None]:
        """Takes the newest state into the model and the optimiser; returns its progress and its best weights, if any.

        Without a state, training is at its beginning.

        Raises:
            AgentPRMError: the state is of another recipe, base model or data; names the first difference.
        """
        for left in self.directory.glob(".draft-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)  # several processes may find it
        path = self.newest()
        if path is None:
            return Progress(), None
        document = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        self._refuse_another(path, document["identity"])
        put_weights(model, load_file(path / WEIGHTS))
        _put_moments(model, optimizer, load_file(path / OPTIMIZER))
        best = load_file(path / BEST) if (path / BEST).exists() else None
        return Progress(**document["progress"]), best

    def _refuse_another(self, path: Path, identity: Mapping[str, Any]) -> None:
        for name in sorted(self._identity.keys() | identity.keys()):
            was, now = identity.get(name), self._identity.get(name)
            if was != now:
                raise AgentPRMError(f"{path} belongs to another run: its {name} is {was}, here it is {now}")


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of the parameters that are trained, by name."""
    return {
        name: parameter.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Writes weights into the parameters of the same names."""
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].copy_(weight)


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns what the optimiser keeps of each parameter, named ``<kind>:<parameter>``."""
    return {
        f"{kind}:{name}": value.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def _put_moments(model: nn.Module, optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for key, value in moments.items():
        kind, _, name = key.partition(":")
        parameter = parameters[name]
        on_device = kind != "step"  # torch keeps the number of steps on the CPU
        optimizer.state[parameter][kind] = value.to(parameter.device) if on_device else value


def _sync(directory: Path) -> None:
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
