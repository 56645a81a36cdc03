"""The family of a checkpoint, by its architecture and tensors, and the recipe that follows from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.format.json_files import read_json
from model_store.importers.chat_template import chat_texts
from model_store.importers.presets import CHAT, PRESETS, Preset
from model_store.text.runs import Place, Run, RunTokenizer


def recognise(architecture: str, shapes: Mapping[str, list[int]]) -> str:
    """The preset of a checkpoint.

    Raises:
        CheckpointError: architecture and tensors do not identify a preset; the message lists the presets.
    """
    score, mlp = shapes.get("score.weight"), shapes.get("score.2.weight")
    if architecture.endswith("ForSequenceClassification") and score and score[0] == 1:
        return "sequence-classification"
    if architecture.endswith("ForTokenClassification") and score and score[0] == 2:
        return "trl-prm"
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


def read_recipe(path: Path) -> Preset:
    """The recipe in a JSON file with ``score`` and ``template``, written as in a preset.

    Raises:
        CheckpointError: the file cannot be read, or is not such an object.
    """
    data = read_json(path)
    if not isinstance(data, dict) or set(data) != {"score", "template"}:
        raise CheckpointError(f"{path} must be an object with score and template, and nothing else")
    if not all(isinstance(part, dict) for part in data.values()):
        raise CheckpointError(f"{path}: score and template must be objects")
    return Preset(**data)


def score_and_template(preset: Preset, path: Path, tokenizer: Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score and template as ``prm.json`` holds them, with the checkpoint's own tokens and texts filled in.

    Raises:
        CheckpointError: its tokenizer lacks a token, or its chat template cannot be used.
    """
    score = {"read": "action_end", **preset.score}
    tokens = score.get("tokens")
    if isinstance(tokens, list):
        score["tokens"] = [_token_id(tokenizer, token) if isinstance(token, str) else token for token in tokens]
    if preset.separator:
        _check_separator(tokenizer, preset.separator)
    texts = {name: score[name] for name in ("opens", "closes") if isinstance(score.get(name), str)}
    for name, text in (_filled(texts, path) if texts else {}).items():
        if name in texts:  # _filled may add strip, which belongs to the template
            ids = _speech_ids(tokenizer, name, text)
            score[name] = ids if name == "opens" else ids[0]
    return score, _filled(preset.template, path)


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


def _filled(template: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known, filled = {"{bos}": bos_token(path)}, dict(template)
    if any(name in json.dumps(template) for name in CHAT):
        *texts, strip = chat_texts(path)
        known |= dict(
            zip(("{start}", "{user_end}", "{user}", "{assistant}", "{assistant_end}"), map(str, texts), strict=True)
        )
        filled |= {"strip": True} if strip else {}
    return {name: _replaced(value, known) for name, value in filled.items()}


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
