"""Score recipes: the head over a hidden state, and the map from its raw score to promise."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
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
    """The map from hidden states to a score; docs/checkpoints.md shows it for every family.

    ``head`` gives the raw score:
        ``linear``, ``mlp``: linear layers over the last hidden state, ReLU between them. ``layers`` names their tensors
            ``<layer>.weight`` and, if the file has it, ``<layer>.bias``; ``output`` is the output to read.
        ``token``, ``token_pair``: logits of ``tokens`` (good, bad) by the language model's own output layer.
        ``vocabulary_mean``: the mean of all logits.
        ``log_ratio``: ``beta`` times the sum of log pi - log pi_ref over the agent's own tokens so far. pi_ref is the
            model in the directory ``reference``. The agent's tokens begin after the ids ``opens`` and end with
            ``closes``.
        ``judge``: text that another server generates, as the manifest's ``judge`` says.

    ``activation`` maps raw to promise: ``sigmoid``; ``identity``, clipped into [0, 1]; or ``softmax`` over all outputs,
    tokens or verdicts. With softmax, raw is the log-odds, whose sigmoid is that probability. A judge that writes a
    number has ``identity``: raw is the number, mapped to [0, 1]. A ``calibration`` replaces the activation, and so does
    a table, ``isotonic``: pairs of raw and promise, both rising, with straight lines between them and level ends.

    ``direction`` is ``lower`` for a head that is high for a bad step; raw is then negated, so that higher is better on
    the wire. ``read`` names the token that is read: ``action_end``, the last of the rendered action, or a judge's
    ``verdict``. With ``pad_token_id`` it is the last that is not this token: so transformers' sequence classifiers
    read, also where the token ends a turn.
    """

    head: Literal["linear", "mlp", "token", "token_pair", "vocabulary_mean", "judge", "log_ratio"]
    activation: Literal["sigmoid", "identity", "softmax"]
    read: Literal["action_end", "verdict"]
    layers: tuple[str, ...] = ("score",)
    output: Annotated[int | None, NOT_NULL] = None
    tokens: tuple[int, ...] = ()
    direction: Literal["higher", "lower"] = "higher"
    calibration: Annotated[Calibration | None, NOT_NULL] = None
    isotonic: tuple[tuple[float, float], ...] = ()
    beta: Annotated[float | None, NOT_NULL] = None
    opens: tuple[int, ...] = ()
    closes: Annotated[int | None, NOT_NULL] = None
    pad_token_id: Annotated[int | None, NOT_NULL] = None

    def promise(self, raw: float) -> float:
        """Promise in [0, 1] of one raw score."""
        if self.calibration is not None:
            return _sigmoid(self.calibration.a * raw + self.calibration.b)
        if self.isotonic:
            return _between(self.isotonic, raw)
        if self.activation == "identity":
            return min(1.0, max(0.0, raw))
        return _sigmoid(raw)


def check_score(score: ScoreRecipe) -> None:
    """Raises ManifestInvalid for a recipe whose fields do not fit each other."""
    token_count = {"token": 1, "token_pair": 2}.get(score.head, 0)
    layer_count = {"linear": "one layer", "mlp": "two layers or more"}.get(score.head)
    is_ratio = score.head == "log_ratio"
    checks = {
        "layers": {"linear": len(score.layers) == 1, "mlp": len(score.layers) > 1}.get(
            score.head, score.layers == ("score",)
        ),
        "tokens": len(set(score.tokens)) == len(score.tokens) == token_count and min(score.tokens, default=0) >= 0,
        "output": score.output is None or (layer_count is not None and score.output >= 0),
        "read": (score.read == "verdict") == (score.head == "judge"),
        "activation": (score.activation == "softmax") == (score.head in ("token_pair", "judge"))
        or (score.activation == "softmax" and layer_count is not None and score.output is not None)
        or (score.activation == "identity" and score.head == "judge"),
        "direction": score.direction == "higher"
        or (
            score.head not in ("judge", "log_ratio")
            and (score.activation != "identity" or score.calibration is not None or bool(score.isotonic))
        ),
        "calibration": score.calibration is None or score.calibration.a > 0,
        "isotonic": _is_table(score.isotonic) and (score.calibration is None or not score.isotonic),
        "beta": (score.beta is not None and score.beta > 0) if is_ratio else score.beta is None,
        "opens": bool(score.opens) == is_ratio and min(score.opens, default=0) >= 0,
        "closes": (score.closes is not None and score.closes >= 0) if is_ratio else score.closes is None,
        "pad_token_id": score.pad_token_id is None or (layer_count is not None and score.pad_token_id >= 0),
    }
    complaints = {
        "layers": f"must name {layer_count or 'nothing'} for a {score.head} head",
        "tokens": f"must hold {token_count} different token ids for a {score.head} head",
        "output": "must be the index of an output of a linear or mlp head",
        "read": "must be verdict for a judge, and action_end for every other head",
        "activation": "must be softmax for a token_pair or judge head (or identity for a judge's number); "
        "else it needs an output of a linear or mlp head",
        "direction": "lower needs a sigmoid, a softmax or a calibration; values, verdicts and ratios have no opposite",
        "calibration": "needs a positive a, or a better raw score would be worse",
        "isotonic": "must hold two pairs or more, raw rising and promise in [0, 1] not falling, without a calibration",
        "beta": "must be positive for a log_ratio head, and goes with no other",
        "opens": "must hold the token ids after which the agent speaks, for a log_ratio head and no other",
        "closes": "must be the token id that ends what the agent says, for a log_ratio head and no other",
        "pad_token_id": "must be a token id, of a linear or mlp head",
    }
    for name, fits in checks.items():
        if not fits:
            raise ManifestInvalid(f"prm.json: score: {name} {complaints[name]}")


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    odds = math.exp(x)  # exp of a negative number: cannot overflow
    return odds / (1 + odds)


def _between(table: tuple[tuple[float, float], ...], raw: float) -> float:
    """The promise of ``raw`` on the lines between the pairs of a table."""
    if math.isnan(raw):
        return raw
    above = bisect_right(table, raw, key=itemgetter(0))
    if above == 0:
        return table[0][1]
    if above == len(table):
        return table[-1][1]
    (low, start), (high, end) = table[above - 1 : above + 1]
    return start + (end - start) * ((raw - low) / (high - low))


def _is_table(table: tuple[tuple[float, float], ...]) -> bool:
    """Whether a table, if there is one, has two pairs or more that rise and are promises."""
    pairs = list(pairwise(table))
    rises = all(low[0] < high[0] and low[1] <= high[1] for low, high in pairs)
    return not table or (bool(pairs) and rises and table[0][1] >= 0 and table[-1][1] <= 1)
