"""The family of a checkpoint, by its architecture and tensors, and the recipe that follows from it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.format.json_files import read_json
from model_store.importers.chat_template import ChatSource, chat_source, chat_texts
from model_store.importers.presets import CHAT, PRESETS, Preset
from model_store.importers.tokenizer_files import read_settings, refuse_other_tokens, text_prefix
from model_store.text.runs import Place, Run, RunTokenizer


def recognise(architecture: str, config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> str:
    """The preset of a checkpoint.

    Raises:
        CheckpointError: architecture, tensors and labels do not identify a preset; the message says what does.
    """
    score, mlp = shapes.get("score.weight"), shapes.get("score.2.weight")
    if architecture.endswith("ForSequenceClassification") and score:
        return _classifier(architecture, config, score[0])
    if architecture.endswith("ForTokenClassification") and score:
        return _token_classifier(architecture, config, score[0])
    if architecture == "Qwen2ForProcessRewardModel" and mlp and mlp[0] == 2:
        return "qwen-math-prm"
    if architecture == "Qwen2ForPrmModel" and "v_head.summary.weight" in shapes:
        return "skywork-prm"
    heads = sorted(
        name for name in shapes if name.startswith(("score.", "v_head.", "mlp.", "regression_head", "value_head"))
    )
    found = f"the head tensors {', '.join(map(one_line, heads[:6]))}" if heads else "no head but its language model's"
    raise CheckpointError(
        f"{one_line(architecture)} with {found} does not tell how it scores; name a preset ({', '.join(PRESETS)}) or "
        "give a recipe of your own"
    )


def refuse_unread_bias(preset: str, shapes: Mapping[str, list[int]]) -> None:
    """Refuses a bias of the head under a preset of transformers' sequence classifiers, which have none."""
    if preset.startswith("sequence-") and "score.bias" in shapes:
        raise CheckpointError(
            "the file holds score.bias, which no sequence classifier of transformers reads; remove it, or give a "
            "recipe, which adds it"
        )


def _classifier(architecture: str, config: Mapping[str, Any], labels: int) -> str:
    if labels != 1:
        raise CheckpointError(
            f"{one_line(architecture)} with {labels} labels does not tell which is good, nor whether they are classes, "
            "steps of a scale or attributes; give a recipe whose score.output names the label to read, with activation "
            "softmax for classes"
        )
    if config.get("problem_type") == "regression":
        raise CheckpointError(
            "config.json says problem_type regression; name --preset sequence-regression for values in [0, 1], or "
            "--preset sequence-classification for a score whose sigmoid is promise"
        )
    return "sequence-classification"


def _token_classifier(architecture: str, config: Mapping[str, Any], labels: int) -> str:
    names = config.get("id2label")
    named = [str(name) for _, name in sorted(names.items())] if isinstance(names, dict) else []
    if labels != 2:
        raise CheckpointError(
            f"{one_line(architecture)} with {labels} label{'s' * (labels != 1)} is not of TRL's stepwise trainer, "
            "which has two; give a recipe that says what to read: activation sigmoid for one label, score.output for "
            "several"
        )
    if named and named != ["LABEL_0", "LABEL_1"]:
        raise CheckpointError(
            f"config.json calls the labels {one_line(', '.join(named))}; name --preset trl-prm if the second is good, "
            "or give a recipe whose score.output names the good one"
        )
    return "trl-prm"


def with_separator(name: str, preset: Preset, separator: str) -> Preset:
    """The preset with another text after each step. Raises CheckpointError for a preset whose text is fixed."""
    if name != "trl-prm":
        raise CheckpointError(f"the separator of {name} is fixed; only trl-prm was trained with several")
    return replace(preset, template={**(preset.template or {}), "action": ("", separator)}, separator="")


def read_recipe(path: Path) -> Preset:
    """The recipe in a JSON file with ``score`` and ``template`` or ``chat``, written as in a preset.

    Raises:
        CheckpointError: the file cannot be read, or is not such an object.
    """
    data = read_json(path)
    if not isinstance(data, dict) or set(data) not in ({"score", "template"}, {"score", "chat"}):
        raise CheckpointError(f"{path} must be an object with score, and template or chat, and nothing else")
    if not all(isinstance(part, dict) for part in data.values()):
        raise CheckpointError(f"{path}: score, template and chat must be objects")
    return Preset(**data)


class Recipe(NamedTuple):
    """``score``, and ``template`` or ``chat``, as ``prm.json`` holds them; ``chat_template`` is the file's text."""

    score: dict[str, Any]
    rendering: dict[str, dict[str, Any]]
    chat_template: ChatSource | None = None


def recipe_of(preset: Preset, path: Path, tokenizer: Tokenizer) -> Recipe:
    """A preset with the checkpoint's own tokens and texts filled in.

    Raises:
        CheckpointError: its tokenizer lacks a token or its files disagree, or its chat template cannot be used.
    """
    refuse_other_tokens(path, tokenizer)
    _check_start(path, preset)
    score = {"read": "action_end", **preset.score}
    tokens = score.get("tokens")
    if isinstance(tokens, list):
        score["tokens"] = [_token_id(tokenizer, token) if isinstance(token, str) else token for token in tokens]
    if preset.separator:
        _check_separator(tokenizer, preset.separator)
    texts = {name: score[name] for name in ("opens", "closes") if isinstance(score.get(name), str)}
    for name, text in (_filled(texts, path, tokenizer) if texts else {}).items():
        if name in texts:  # _filled may add strip, which belongs to the template
            ids = _speech_ids(tokenizer, name, text)
            score[name] = ids if name == "opens" else ids[0]
    if preset.template is not None:
        return Recipe(score, {"template": _filled(preset.template, path, tokenizer)})
    source = chat_source(path)
    return Recipe(score, {"chat": source.fields | dict(preset.chat or {})}, source)


def _check_start(path: Path, preset: Preset) -> None:
    """Refuses a checkpoint whose chat template opens a chat otherwise than its preset: it was trained otherwise."""
    if not preset.start or not has_chat_template(path):
        return
    start = chat_texts(path).start
    if start != preset.start:
        raise CheckpointError(
            f"{path}: its chat template opens a chat with {one_line(start, 300)!r}, which this preset does not; "
            "--preset reasonflux-prm follows the template"
        )


def _speech_ids(tokenizer: Tokenizer, name: str, text: str) -> list[int]:
    """The token ids of a text that opens or closes the agent's turn.

    White space at its end is left out: it may grow into a token of the agent's text, and counts as the agent's.
    """
    runs = RunTokenizer(tokenizer)
    parts = runs.split(text.rstrip())
    if not parts or isinstance(parts[0], str) or (name == "closes" and len(parts) > 1):
        raise CheckpointError(
            f"score: {name} must {'be' if name == 'closes' else 'begin with'} a special token of tokenizer.json, or an "
            f"agent could write it; it is {one_line(text)!r}"
        )
    return [
        token_id
        for part in parts
        for token_id in (runs.encode([Run(part, Place.AFTER_SPECIAL)])[0] if isinstance(part, str) else part)
    ]


def _filled(template: Mapping[str, Any], path: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    known, filled, written = {"{bos}": bos_token(path)}, dict(template), json.dumps(template)
    if "{prefix}" in written:
        known["{prefix}"] = text_prefix(path, tokenizer, known["{bos}"])
    if any(name in written for name in CHAT):
        *texts, strip = chat_texts(path)
        known |= dict(
            zip(("{start}", "{user_end}", "{user}", "{assistant}", "{assistant_end}"), map(str, texts), strict=True)
        )
        filled |= {"strip": True} if strip else {}
        if strip and filled.get("strip_task") == "none":
            filled["strip_task"] = "start"  # the turn that the task opens is trimmed, not the task
    return {name: _replaced(value, known) for name, value in filled.items()}


def has_chat_template(path: Path) -> bool:
    """Whether the files of a tokenizer hold a chat template."""
    return bool(read_settings(path).get("chat_template")) or (path / "chat_template.jinja").exists()


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, list | tuple):
        return [_replaced(part, known) for part in value]
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(name, text)
    return value


def bos_token(path: Path) -> str:
    """The beginning-of-sequence token that a tokenizer's files name; empty if they name none."""
    for file in (path / "tokenizer_config.json", path / "special_tokens_map.json"):
        try:
            token = json.loads(file.read_text(encoding="utf-8")).get("bos_token") if file.exists() else None
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 300)}") from error
        if isinstance(token, dict):  # a token with properties
            token = token.get("content")
        if not isinstance(token, str | None):
            raise CheckpointCorrupt(f"{file}: bos_token must be a text")
        if token:
            return token
    return ""


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointCorrupt(f"tokenizer.json has no token {one_line(token)!r}, which the recipe reads")
    return found


def _check_separator(tokenizer: Tokenizer, separator: str) -> None:
    runs = RunTokenizer(tokenizer)
    parts = runs.split(separator)
    ids = [runs.encode([Run(part, Place.WITHIN)])[0] if isinstance(part, str) else part for part in parts]
    if [len(part) for part in ids] != [1]:
        raise CheckpointCorrupt(
            f"tokenizer.json has no token for {separator!r}, which ends each step of this family; "
            "it is another family, or the token was added in code and has to be added to the file"
        )
