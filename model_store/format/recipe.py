"""How a hidden state becomes a score."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from model_store.errors import ManifestInvalid
from model_store.format.validation import NOT_NULL


@dataclass(frozen=True, slots=True)
class Calibration:
    """promise = sigmoid(``a`` raw + ``b``), ``a`` > 0: Platt scaling. A temperature T is a = 1 / T, b = 0."""

    a: float
    b: float


@dataclass(frozen=True, slots=True)
class ScoreRecipe:
    """How hidden states become a score; docs/checkpoints.md shows it for every family.

    ``head``: ``linear`` or ``mlp`` (linear layers, ReLU between them) over the last hidden state, from the tensors
    ``<layer>.weight`` and, where there is one, ``<layer>.bias`` of ``layers``; ``token`` and ``token_pair``: the logits
    that the language model's own output layer gives ``tokens`` (good, bad); ``vocabulary_mean``: their mean over all
    tokens; ``judge``: what a model elsewhere generates, as the manifest's ``judge`` says; ``log_ratio``: ``beta`` times
    the sum of log pi - log pi_ref over the agent's own tokens so far, pi_ref the model in the directory ``reference``.
    They begin after the token ids ``opens`` and end with ``closes``. ``output``: which of several outputs counts.

    ``activation`` maps raw to promise: ``sigmoid``, ``softmax`` (over all outputs, tokens or verdicts; raw is then the
    log-odds, so that its sigmoid is that probability), or ``identity`` (clipped into [0, 1]); a ``calibration``
    replaces it. ``direction``: ``lower`` for a head that is high where a step is bad; raw is then negated, so that on
    the wire higher is better. ``read`` names the token that counts: ``action_end``, the last of the rendered action, or
    a judge's ``verdict``.
    """

    head: Literal["linear", "mlp", "token", "token_pair", "vocabulary_mean", "judge", "log_ratio"]
    activation: Literal["sigmoid", "identity", "softmax"]
    read: Literal["action_end", "verdict"]
    layers: tuple[str, ...] = ("score",)
    output: Annotated[int | None, NOT_NULL] = None
    tokens: tuple[int, ...] = ()
    direction: Literal["higher", "lower"] = "higher"
    calibration: Annotated[Calibration | None, NOT_NULL] = None
    beta: Annotated[float | None, NOT_NULL] = None
    opens: tuple[int, ...] = ()
    closes: Annotated[int | None, NOT_NULL] = None

    def promise(self, raw: float) -> float:
        """Promise in [0, 1] of one raw score."""
        if self.calibration is not None:
            return _sigmoid(self.calibration.a * raw + self.calibration.b)
        if self.activation == "identity":
            return min(1.0, max(0.0, raw))
        return _sigmoid(raw)


def check_score(score: ScoreRecipe) -> None:
    """Refuses a recipe whose fields do not fit each other."""
    of_tokens = {"token": 1, "token_pair": 2}.get(score.head, 0)
    of_layers = {"linear": "one layer", "mlp": "two layers or more"}.get(score.head)
    ratio = score.head == "log_ratio"
    right = {
        "layers": {"linear": len(score.layers) == 1, "mlp": len(score.layers) > 1}.get(
            score.head, score.layers == ("score",)
        ),
        "tokens": len(set(score.tokens)) == len(score.tokens) == of_tokens and min(score.tokens, default=0) >= 0,
        "output": score.output is None or (of_layers is not None and score.output >= 0),
        "read": (score.read == "verdict") == (score.head == "judge"),
        "activation": (score.activation == "softmax") == (score.head in ("token_pair", "judge"))
        or (score.activation == "softmax" and of_layers is not None and score.output is not None),
        "direction": score.direction == "higher"
        or (
            score.head not in ("judge", "log_ratio")
            and (score.activation != "identity" or score.calibration is not None)
        ),
        "calibration": score.calibration is None or score.calibration.a > 0,
        "beta": (score.beta is not None and score.beta > 0) if ratio else score.beta is None,
        "opens": bool(score.opens) == ratio and min(score.opens, default=0) >= 0,
        "closes": (score.closes is not None and score.closes >= 0) if ratio else score.closes is None,
    }
    complaints = {
        "layers": f"must name {of_layers or 'nothing'} for a {score.head} head",
        "tokens": f"must hold {of_tokens} different token ids for a {score.head} head",
        "output": "must be the index of an output of a linear or mlp head",
        "read": "must be verdict for a judge, and action_end for every other head",
        "activation": "must be softmax for a token_pair or judge head; else it needs an output of a linear or mlp head",
        "direction": "lower needs a sigmoid, a softmax or a calibration; values, verdicts and ratios have no opposite",
        "calibration": "needs a positive a, or a better raw score would be worse",
        "beta": "must be positive for a log_ratio head, and goes with no other",
        "opens": "must hold the token ids after which the agent speaks, for a log_ratio head and no other",
        "closes": "must be the token id that ends what the agent says, for a log_ratio head and no other",
    }
    for name, fits in right.items():
        if not fits:
            raise ManifestInvalid(f"prm.json: score: {name} {complaints[name]}")


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    odds = math.exp(x)  # exp of a negative number: cannot overflow
    return odds / (1 + odds)
