"""``prm.json``: what a checkpoint is, how its text is rendered and how its score is read.

Knows no torch and opens no weights; a manifest that parses is complete, of the right types and agrees with itself.
Fields with a default may be absent, and at their default are not written: a field added to the format later changes
no digest of a checkpoint that does without it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from agentprm.errors import ManifestInvalid
from agentprm.types import Step, Trajectory
from model_store.judge import Judge, check_judge

FORMAT: Final = 1
MAX_DEPTH: Final = 100
T = TypeVar("T")


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
    output: int | None = None
    tokens: tuple[int, ...] = ()
    direction: Literal["higher", "lower"] = "higher"
    calibration: Calibration | None = None
    beta: float | None = None
    opens: tuple[int, ...] = ()
    closes: int | None = None

    def promise(self, raw: float) -> float:
        """Promise in [0, 1] of one raw score."""
        if self.calibration is not None:
            return _sigmoid(self.calibration.a * raw + self.calibration.b)
        if self.activation == "identity":
            return min(1.0, max(0.0, raw))
        return _sigmoid(raw)


@dataclass(frozen=True, slots=True)
class Template:
    """The text around each segment, as ``(before, after)``; special tokens are recognised here and only here.

    ``action[1]`` must not be empty: its last token is where every action ends and is scored. ``next`` stands between
    an action's end and what follows it. ``tokenise``: every segment and every text around it on its own
    (``segments``), the task together with its texts and the rest on its own (``steps``), or all together, as
    tokenising the ``text`` at once does. ``skip_empty_observation``: an empty one leaves out its texts too.
    ``strip``: whitespace around a segment is cut off, as many chat templates do.
    """

    begin: str
    task: tuple[str, str]
    observation: tuple[str, str]
    action: tuple[str, str]
    next: str = ""
    tokenise: Literal["segments", "steps", "text"] = "segments"
    skip_empty_observation: bool = False
    strip: bool = False

    def whole_text(self, trajectory: Trajectory) -> str:
        """What the renderer's tokens stand for, special tokens of the template written out."""
        return self.begin + self._around(self.task, trajectory.task) + self.steps_text(trajectory.steps)

    def steps_text(self, steps: Sequence[Step]) -> str:
        """The part of it that tells the steps."""
        text = ""
        for index, step in enumerate(steps):
            text += self.next if index else ""
            if (step.observation.strip() if self.strip else step.observation) or not self.skip_empty_observation:
                text += self._around(self.observation, step.observation)
            text += self._around(self.action, step.action)
        return text

    def _around(self, texts: tuple[str, str], segment: str) -> str:
        return texts[0] + (segment.strip() if self.strip else segment) + texts[1]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields of ``prm.json``. ``digest`` covers all the others and every other file of the checkpoint."""

    format: int
    name: str
    version: str
    base_model: str
    score: ScoreRecipe
    template: Template
    render_version: int
    dtype: Literal["float32", "bfloat16", "float16"]
    context_length: int
    training: dict[str, Any]
    evaluation: dict[str, Any]
    judge: Judge | None = None
    digest: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        return json.dumps(_encode(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def content(self) -> bytes:
        """What the digest covers: every field but the digest, in canonical JSON."""
        content = json.loads(self.to_json())  # as a reader gets it: JSON turns tuples to lists, keys to text
        content.pop("digest", None)
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``.

    Raises:
        ManifestInvalid: no JSON object, one that cannot be written again, a missing or unknown field, or a value of
            the wrong type; names the field.
    """
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()  # what the digest covers must be JSON in UTF-8
        too_deep = _depth(data) > MAX_DEPTH
    except ValueError as error:
        raise ManifestInvalid(f"prm.json is not JSON: {error}") from error
    except RecursionError:
        too_deep = True
    if too_deep:
        raise ManifestInvalid(f"prm.json nests deeper than {MAX_DEPTH} levels")
    manifest = _decode(Manifest, data, "prm.json")
    if manifest.format != FORMAT:
        raise ManifestInvalid(f"prm.json: format is {manifest.format}, this version reads {FORMAT}")
    if not manifest.digest:
        raise ManifestInvalid("prm.json: digest is missing or empty; publish the checkpoint to give it one")
    if manifest.context_length < 1:
        raise ManifestInvalid("prm.json: context_length must be positive")
    if not manifest.template.action[1]:
        raise ManifestInvalid("prm.json: template.action must end in a boundary, its second text is empty")
    _check_score(manifest.score)
    if (manifest.judge is not None) != (manifest.score.head == "judge"):
        raise ManifestInvalid("prm.json: judge goes with the head of that name, and that head with it")
    if manifest.judge is not None:
        check_judge(manifest.judge)
    return manifest


def shown(text: str, limit: int = 80) -> str:
    """What came from a file or another library, fit for a sentence: short, and in one line."""
    return " ".join(text.split()).encode("unicode_escape").decode()[:limit]


def _check_score(score: ScoreRecipe) -> None:
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


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_encode(part) for part in value]
    if not is_dataclass(value):
        return value
    kept = {one.name: getattr(value, one.name) for one in fields(value)}
    for one in fields(value):
        if kept[one.name] == one.default:
            del kept[one.name]
    return {name: _encode(part) for name, part in kept.items()}


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _decode(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from JSON, strictly: every field there, none unknown, no value coerced."""
    if not isinstance(data, Mapping):
        raise ManifestInvalid(f"{where} must be an object")
    hints = get_type_hints(kind)
    needed = {one.name for one in fields(kind) if one.default is MISSING}  # type: ignore[arg-type]
    for wrong, complaint in ((needed - set(data), "is missing"), (set(data) - set(hints), "is not a field")):
        if wrong:
            raise ManifestInvalid(f"{where}: {', '.join(map(shown, sorted(wrong)[:5]))} {complaint}")
    return kind(**{name: _value(hints[name], data[name], f"{where}: {name}") for name in hints if name in data})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return _decode(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ManifestInvalid(f"{where} must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if NoneType in arguments:  # None is how Python holds what is absent; in JSON it is absent
        return _value(arguments[0], value, where)
    return _plain(origin or hint, value, where)


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if kinds[1:] == (...,):
        if not isinstance(value, list):
            raise ManifestInvalid(f"{where} must be a list")
        return tuple(_value(kinds[0], part, where) for part in value)
    if not isinstance(value, list) or len(value) != len(kinds):
        raise ManifestInvalid(f"{where} must be a list of {len(kinds)} texts")
    return tuple(_value(one, part, where) for one, part in zip(kinds, value, strict=True))


def _plain(expected: Any, value: Any, where: str) -> Any:
    kinds = (int, float) if expected is float else expected
    if not isinstance(value, kinds) or (isinstance(value, bool) and expected is not bool):
        raise ManifestInvalid(f"{where} must be {_name(expected)}")
    if expected is float:
        try:
            return float(value)
        except OverflowError as error:
            raise ManifestInvalid(f"{where} must be {_name(expected)}") from error
    return value


def _name(expected: Any) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
    return names.get(expected, str(expected))
