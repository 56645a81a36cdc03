"""Token batches of rollouts, rendered by the renderer that serving uses.

Axes: B batch (whole trajectories), S steps, T tokens.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from agentprm.errors import AgentPRMError
from agentprm.types import State
from model_store.text.renderer import Renderer
from training.rollouts.rollout import Rollout

NO_LOSS = -100  # the index that torch's cross entropy ignores


@dataclass(frozen=True, slots=True)
class Example:
    """One rollout in tokens.

    ``step_ends`` are indices into ``token_ids`` of each action's last token, where its score is read. ``task_length``
    tokens come before step 0. ``outcome`` is None if the rollout was truncated.
    """

    token_ids: list[int]
    step_ends: list[int]
    task_length: int
    outcome: float | None


class Batch(NamedTuple):
    """Rows padded on the right; ``step_ends_BS`` is 0 where ``is_step_BS`` is False. ``outcomes`` is [B]."""

    token_ids_BT: Tensor
    step_ends_BS: Tensor
    is_step_BS: Tensor
    outcomes: list[float | None]


def encode(rollouts: Sequence[Rollout], renderer: Renderer, context_length: int) -> list[Example]:
    """Renders rollouts, final observation included: the language model learns from it, but no score is read there.

    Raises:
        AgentPRMError: a rollout has no steps or more than ``context_length`` tokens; names its index and size.
    """
    examples = []
    for row, rollout in enumerate(rollouts):
        task, steps = rollout.trajectory.task, rollout.trajectory.steps
        rendered = renderer.state(State(task, steps, rollout.observation))
        token_ids = rendered.token_ids
        if not rendered.step_ends or len(token_ids) > context_length:
            raise AgentPRMError(
                f"rollout {row}: {len(rendered.step_ends)} steps in {len(token_ids)} tokens; "
                f"a rollout needs at least one step and at most {context_length} tokens"
            )
        outcome = None if rollout.truncated else rollout.outcome
        examples.append(Example(token_ids, rendered.step_ends, rendered.task_len, outcome))
    return examples


def batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Yields full batches without end, every example at most once an epoch, in an order that only ``seed`` decides.

    The examples that fill no batch at the end of an epoch are left out of it.

    Raises:
        ValueError: there are fewer examples than ``size``.
    """
    if len(examples) < size:
        raise ValueError(f"{len(examples)} examples cannot fill a batch of {size}")
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(len(examples)), len(examples))
        for start in range(0, len(order) - size + 1, size):
            yield [examples[index] for index in order[start : start + size]]


def collate(examples: Sequence[Example]) -> Batch:
    """Returns a batch of whole trajectories, padded to the longest."""
    steps = [torch.tensor(example.step_ends) for example in examples]
    return Batch(
        token_ids_BT=pad([torch.tensor(example.token_ids) for example in examples], 0),
        step_ends_BS=pad(steps, 0),
        is_step_BS=pad([torch.ones_like(ends, dtype=torch.bool) for ends in steps], value=False),
        outcomes=[example.outcome for example in examples],
    )


def next_tokens(examples: Sequence[Example]) -> Tensor:
    """Returns the token after each position, [B, T]; ``NO_LOSS`` inside the task and where nothing follows."""
    rows = []
    for example in examples:
        following = torch.tensor([*example.token_ids[1:], NO_LOSS])
        following[: example.task_length - 1] = NO_LOSS
        rows.append(following)
    return pad(rows, NO_LOSS)


def pad(rows: list[Tensor], value: float) -> Tensor:
    """Stacks rows of different lengths [B, longest], filled on the right with ``value``."""
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
