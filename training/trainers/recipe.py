"""Everything that decides the weights besides the base model and the data."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from training.data.targets import Labels

Dtype = Literal["float32", "bfloat16"]
FULL_RATE: Final = 1e-6
"""Learning rate of the whole model, as in AgentPRM (arXiv 2511.08325, section 4.1)."""
LORA_RATE: Final = 1e-4
HEAD_RATE: Final = 1e-4
"""Least peak learning rate of the head. It starts at zero, and would hardly move at a rate for pretrained weights."""
WEIGHT_DECAY: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Labels, sizes, rates and random seed of a training run.

    ``dtype`` is that of the backbone's arithmetic. Weights that are trained stay in float32 whichever it is, because
    small updates are lost in bfloat16; frozen ones below an adapter (``lora``, its rank) are kept in ``dtype``.
    """

    labels: Labels = field(default_factory=Labels)
    beta: float | None = None  # weight of the progress loss L_A; None: 1 for td-gae and mc, else 0
    lora: int | None = None  # rank of the adapter; None: the whole model is trained
    learning_rate: float | None = None  # peak; None: FULL_RATE or LORA_RATE
    epochs: int = 5  # the paper's most
    patience: int = 2  # epochs without a better AUC on the validation queries before training stops
    tokens_per_update: int = 16_384  # of whole trajectories that an optimiser step learns from
    tokens_per_forward: int = 4_096  # of them at once: this decides the memory, and nothing else
    dtype: Dtype = "float32"
    gradient_checkpointing: bool = False
    seed: int = 0

    @property
    def progress_weight(self) -> float:
        """Beta of eq. 10."""
        if self.beta is not None:
            return self.beta
        return 1.0 if self.labels.method in ("td-gae", "mc", "mc-hard") else 0.0

    @property
    def peak_rate(self) -> float:
        """The highest learning rate of the schedule."""
        if self.learning_rate is not None:
            return self.learning_rate
        return FULL_RATE if self.lora is None else LORA_RATE

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe with its defaults filled in, for a manifest or a saved state."""
        filled = {"beta": self.progress_weight, "learning_rate": self.peak_rate, "weight_decay": WEIGHT_DECAY}
        return asdict(self) | filled
