"""Recipes of the published families of process reward models: the head, and the text around each step.

Each follows the code or model card of its authors; docs/checkpoints.md has a table. In texts ``{bos}`` is the
checkpoint's own beginning-of-sequence token, ``{prefix}`` is what its tokenizer puts before a text by itself, and the
other names in braces are the texts of its chat template. Mathematical families have no observations: the text around
one is added here, and an empty one adds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from model_store.format.validation import TextPair

CHAT: Final = ("{start}", "{user}", "{user_end}", "{assistant}", "{assistant_end}")
_QWEN_MATH_TASK: Final = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n"
)
_PQM_TASK: Final = (
    "Below is an instruction that describes a task.\nWrite a response that appropriately completes the request.\n\n"
    "### Instruction:\n"
)
_LINE: Final = ("", "\n")


@dataclass(frozen=True, slots=True)
class Preset:
    """``score`` and ``template`` as in ``prm.json``, but with texts and entries of the vocabulary instead of token ids.

    A family that renders by the checkpoint's own chat template has ``chat`` instead of ``template``: fields that it
    does not leave to the checkpoint.

    ``separator`` must be a single token of the tokenizer; a checkpoint without it is of another family. With
    ``separator_added``, training code adds it to the tokenizer of the base. ``start`` is the text that opens the first
    user turn: a checkpoint whose chat template has another is of another family too.
    """

    score: Mapping[str, Any]
    template: Mapping[str, Any] | None = None
    chat: Mapping[str, Any] | None = None
    separator: str = ""
    separator_added: bool = False
    start: str = ""


def _text(begin: str, task: TextPair, observation: TextPair, action: TextPair, following: str = "") -> dict[str, Any]:
    """A template whose text the authors tokenise as a whole."""
    texts = {"begin": begin, "task": task, "observation": observation, "action": action, "next": following}
    return {**texts, "tokenise": "text", "skip_empty_observation": True}


def _pair(good: str, bad: str) -> dict[str, Any]:
    return {"head": "token_pair", "tokens": [good, bad], "activation": "softmax"}


_QWEN_MATH_HEAD: Final = {"head": "mlp", "layers": ["score.0", "score.2"], "output": 1, "activation": "softmax"}
_QWEN_MATH_TURN: Final = ("", "<extra_0>")

_RATIO: Final = {"head": "log_ratio", "activation": "sigmoid", "opens": "{assistant}", "closes": "{assistant_end}"}

PRESETS: Final[Mapping[str, Preset]] = {
    "sequence-classification": Preset({"head": "linear", "activation": "sigmoid"}, chat={}),
    "sequence-regression": Preset({"head": "linear", "activation": "identity"}, chat={}),
    "trl-prm": Preset(
        {"head": "linear", "output": 1, "activation": "softmax"},
        {
            "begin": "{bos}",
            "task": ("", ""),
            "observation": _LINE,
            "action": _LINE,
            "skip_empty_observation": True,
        },
        separator="\n",
    ),
    "qwen-math-prm": Preset(
        _QWEN_MATH_HEAD,
        _text(
            "",
            (_QWEN_MATH_TASK, "<|im_end|>\n<|im_start|>assistant\n"),
            ("<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
            _QWEN_MATH_TURN,
        ),
        separator="<extra_0>",
        start=_QWEN_MATH_TASK,
    ),
    "reasonflux-prm": Preset(
        _QWEN_MATH_HEAD,
        _text(
            "",
            ("{start}", "{user_end}{assistant}"),
            ("{assistant_end}{user}", "{user_end}{assistant}"),
            _QWEN_MATH_TURN,
        ),
        separator="<extra_0>",
    ),
    "skywork-prm": Preset(
        {"head": "linear", "layers": ["v_head.summary"], "activation": "sigmoid"},
        {
            "begin": "{bos}",
            "task": _LINE,
            "observation": _LINE,
            "action": _LINE,
            "tokenise": "steps",
            "skip_empty_observation": True,
        },
        separator="\n",
    ),
    "pqm": Preset(
        {"head": "linear", "layers": ["v_head.summary"], "activation": "sigmoid"},
        _text(
            "",
            (_PQM_TASK, "\n\n### Response: Let's think step by step\n"),
            _LINE,
            ("", " [PRM]"),
            "\n",
        ),
        separator="[PRM]",
        separator_added=True,
    ),
    "qlass": Preset(
        {"head": "mlp", "layers": ["mlp.0", "mlp.2", "mlp.4"], "activation": "identity"},
        _text("{bos}", ("[INST] ", " [/INST]"), ("[INST] ", " [/INST]"), ("", " </s>"), "<s>"),
        separator="</s>",
    ),
    "math-shepherd": Preset(_pair("▁+", "▁-"), _text("{prefix}", ("", " "), _LINE, ("", " ки"), "\n"), separator=" ки"),
    "rlhflow": Preset(
        _pair("+", "-"),
        {
            **_text("", ("{start}", " "), _LINE, ("", "{user_end}{assistant}"), "+{assistant_end}{user}"),
            "strip": True,
            "strip_task": "none",
        },
    ),
    "er-prm": Preset(_pair("Ġ+", "Ġ-"), _text("{prefix}", ("", " "), _LINE, ("", " ки")), separator=" ки"),
    "versaprm": Preset(
        _pair("+", "-"),
        {**_text("{prefix}", ("", " \n\n"), _LINE, ("", " \n\n\n\n")), "strip": True},
        separator=" \n\n\n\n",
    ),
    "openr": Preset(
        _pair("Ġ+", "Ġ-"),
        {
            **_text("{prefix}", ("", " "), _LINE, ("", " \n\n\n\n\n"), " "),
            "strip": True,
            "strip_task": "none",
        },
        separator=" \n\n\n\n\n",
    ),
    "llemma": Preset(
        {"head": "vocabulary_mean", "activation": "sigmoid"},
        _text("{prefix}", ("# Question\n\n", "\n\n# Solution\n\n"), _LINE, ("", "\n"), "\n"),
        separator="\n",
    ),
    "implicit-prm": Preset(_RATIO, chat={}),
    "eurus-prm": Preset(
        _RATIO,
        _text(
            "", ("{start}", "{user_end}{assistant}"), ("{assistant_end}{user}", "{user_end}{assistant}"), ("", "\n\n")
        ),
    ),
}
