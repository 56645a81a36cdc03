"""Algorithm 1 of AgentPRM (arXiv 2511.08325) on any causal language model, with resumable states.

Each update scores whole trajectories with the current model, makes their targets from those scores (detached), and
trains the same forwards towards them. With several processes each takes a share of an update's forwards, and their
gradients are summed: an update is the same however many share it. Axes: B trajectories, S steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from agentprm.errors import AgentPRMError
from model_store.network.model import RewardModel
from training.data.encoding import Encoded, named
from training.data.packing import pack, updates
from training.data.targets import is_labelled, refuse_missing_labels, targets
from training.evaluation.metrics import step_auc
from training.trainers.forward import Forward, choose_forward
from training.trainers.loss import Counts, Loss, agentprm_loss, counts, padded_targets
from training.trainers.optimizer import Schedule, clip_and_step
from training.trainers.preparing import optimizer_of, prepare
from training.trainers.recipe import Recipe
from training.trainers.state import Progress, States, put_weights, trained_weights

SAVE_EVERY: Final = 50
"""Updates between two states; an epoch's end has one too."""
_ANY_MEMORY: Final = (
    "out of memory for the weights, their optimiser or the longest trajectory; --lora with --dtype bfloat16 needs less"
)


class Data(NamedTuple):
    """Trajectories to learn from, and those of other queries whose AUC chooses the epoch; there may be none."""

    train: Sequence[Encoded]
    validation: Sequence[Encoded]


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, in place of the base it came from, and how it got there.

    ``packed`` says whether forwards were packed without padding, which the model's attention has to allow.
    """

    model: RewardModel
    progress: Progress
    packed: bool


def train(
    model: RewardModel,
    data: Data,
    recipe: Recipe,
    states: States,
    accelerator: Accelerator,
    *,
    save_every: int = SAVE_EVERY,
) -> Trained:
    """Trains ``model`` in place, from the newest state on, and returns it with the weights of its best epoch.

    The best epoch has the highest step AUC on the validation queries. Without an AUC there, the last epoch counts.

    Raises:
        AgentPRMError: the data lacks what the labels need, the newest state is of another run, a loss is not finite,
            memory runs out, or a state cannot be written.
    """
    refuse_missing_labels(data.train, recipe.labels)
    everything = [*data.train, *data.validation]
    with _memory_told(_ANY_MEMORY):
        prepare(model, recipe, accelerator.device)
        with choose_forward(model, getattr(torch, recipe.dtype), everything) as forward:
            if forward.padded:
                accelerator.print(f"note: packed rows would get a {_family(model)} wrong, so rows are padded")
            run = _Run(forward, data, recipe, states, accelerator)
            run.train(save_every)
    model.eval()
    return Trained(model, run.progress, packed=not forward.padded)


class _Run:
    def __init__(self, forward: Forward, data: Data, recipe: Recipe, states: States, accelerator: Accelerator) -> None:
        self.forward, self.model, self.data = forward, forward.model, data
        self.recipe, self.states, self.accelerator = recipe, states, accelerator
        self.optimizer = optimizer_of(self.model, recipe)
        epochs = updates(
            [example.tokens for example in data.train], recipe.tokens_per_update, recipe.epochs, recipe.seed
        )
        self.plan = [(indices, indices is epoch[-1]) for epoch in epochs for indices in epoch]
        self.schedule = Schedule(recipe.peak_rate, len(self.plan))
        self.progress, self.best = states.load(self.model, self.optimizer)

    def train(self, save_every: int) -> None:
        """Takes the updates that are left, and the best epoch's weights in the end."""
        shown = tqdm(
            total=len(self.plan),
            initial=self.progress.updates,
            desc=self.recipe.labels.method,
            unit="update",
            disable=not self.accelerator.is_main_process,
            mininterval=2,
        )
        tokens, started = 0, perf_counter()
        with shown:
            for indices, ends_epoch in self.plan[self.progress.updates :]:
                if self.progress.epochs_without_gain() >= self.recipe.patience:
                    break
                update = [self.data.train[index] for index in indices]
                told = self._update(update)
                tokens += sum(example.tokens for example in update)
                self._tell(shown, told | {"tokens_per_second": tokens / (perf_counter() - started)})
                if ends_epoch:
                    self._measure()
                if ends_epoch or self.progress.updates % save_every == 0:
                    self._save()
        if self.best is not None:
            put_weights(self.model, self.best)

    def _update(self, update: Sequence[Encoded]) -> dict[str, float]:
        """Takes one optimiser step and returns what it measured."""
        number, recipe = self.progress.updates, self.recipe
        rate, lam = self.schedule.rate(number), recipe.labels.lam_at(number, len(self.plan))
        over = counts(padded_targets([_as_targets(is_labelled(example, recipe.labels)) for example in update])[1])
        self.optimizer.zero_grad()
        sums = torch.zeros(2, device=self.accelerator.device)
        for part in self._share(pack(update, recipe.tokens_per_forward, padded=self.forward.padded)):
            with _memory_told(_forward_memory(recipe, part)):
                loss = self._loss(part, over, lam)
                torch.autograd.backward(loss.promise + recipe.progress_weight * loss.progress)
            sums += torch.stack(loss).detach()
        self._sum_gradients()
        norm = clip_and_step(self.optimizer, rate)
        if not np.isfinite(norm):
            raise AgentPRMError(f"the gradient is {norm} at update {number + 1}, of {_names(update)}; lower --lr")
        promise_loss, progress_loss = self.accelerator.reduce(sums, "sum").tolist()
        self.progress.updates += 1
        total = promise_loss + recipe.progress_weight * progress_loss
        self.progress.losses.append(total)
        return {
            "loss": total, "promise_loss": promise_loss, "progress_loss": progress_loss,
            "learning_rate": rate, "lam": lam, "gradient_norm": norm,
        }  # fmt: skip

    def _loss(self, part: Sequence[Encoded], over: Counts, lam: float) -> Loss:
        promise_BS = self.forward.promises(part)
        rows = []
        for example, promises in zip(part, promise_BS.tolist(), strict=True):
            own = promises[: example.steps]
            if not np.isfinite(own).all():
                raise AgentPRMError(
                    f"the loss is NaN at update {self.progress.updates + 1}: promises of {example.name} are not "
                    "finite; look at that trajectory, or lower --lr"
                )
            rows.append(targets(example, own, self.recipe.labels, lam))
        target_BS, labelled_BS = (tensor.to(promise_BS.device) for tensor in padded_targets(rows))
        return agentprm_loss(promise_BS, target_BS, labelled_BS, over)

    def _share(self, packs: Sequence[list[Encoded]]) -> Sequence[list[Encoded]]:
        return packs[self.accelerator.process_index :: self.accelerator.num_processes]

    def _sum_gradients(self) -> None:
        """Adds up the gradients of all processes; one that had no part in the update adds nothing."""
        if self.accelerator.num_processes == 1:
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, "sum")

    def _measure(self) -> None:
        """Adds the AUC on the validation queries, if it has one, and keeps the weights if it is the best."""
        auc = self._auc()
        if auc is None:
            return
        self.progress.measured.append(auc)
        if self.progress.epochs_without_gain() == 0:
            self.best = trained_weights(self.model)
        self.accelerator.log({"validation_auc": auc}, step=self.progress.updates)

    @torch.no_grad()
    def _auc(self) -> float | None:
        """Returns the step AUC on the validation queries; None if they have one outcome only."""
        known = [example for example in self.data.validation if example.rollout.outcome is not None]
        judged: list[tuple[float, float]] = []
        for part in self._share(pack(known, self.recipe.tokens_per_forward, padded=self.forward.padded)):
            for example, promises in zip(part, self.forward.promises(part).tolist(), strict=True):
                judged += [(promise, example.rollout.outcome or 0.0) for promise in promises[: example.steps]]
        promises_N, outcomes_N = np.array(gather_object(judged) or np.empty((0, 2))).T
        return step_auc(promises_N, outcomes_N) if len(set(outcomes_N > 0)) == 2 else None

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.states.save(self.progress, self.model, self.optimizer, self.best)
        self.accelerator.wait_for_everyone()

    def _tell(self, shown: Any, told: Mapping[str, float]) -> None:
        self.accelerator.log(dict(told), step=self.progress.updates)
        auc = f"{self.progress.measured[-1]:.3f}" if self.progress.measured else "-"
        shown.set_postfix(
            loss=f"{told['loss']:.4f}", auc=auc, tokens_s=f"{told['tokens_per_second']:.0f}", refresh=False
        )
        shown.update()


@contextmanager
def _memory_told(sentence: str) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise AgentPRMError(sentence) from error


def _forward_memory(recipe: Recipe, part: Sequence[Encoded]) -> str:
    tokens, most = sum(example.tokens for example in part), recipe.tokens_per_forward
    advice = f"lower --tokens-per-forward, now {most}" if len(part) > 1 else "the longest trajectory needs it alone"
    return (
        f"out of memory in a forward of {tokens} tokens: {advice}; --gradient-checkpointing, --lora and "
        "--dtype bfloat16 need less"
    )


def _family(model: RewardModel) -> str:
    name: str = model.backbone.config.model_type
    return name


def _as_targets(labelled: Sequence[bool]) -> list[float | None]:
    return [0.0 if one else None for one in labelled]


def _names(examples: Sequence[Encoded]) -> str:
    return named([example.name for example in examples])
