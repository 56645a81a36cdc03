"""The files beside ``tokenizer.json`` that change its tokens: transformers follows them too.

A checkpoint whose files disagree is refused: its authors' code had the tokens of all files together.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line

CURE: Final = "load the tokenizer with transformers and save it anew, so that tokenizer.json says what the others say"
SPACES: Final = ("▁", "Ġ")
FOLLOW_ADD_BOS: Final = ("Llama", "CodeLlama", "Gemma", "Cohere")
"""Beginnings of the tokenizer classes that follow ``add_bos_token`` whatever ``tokenizer.json`` says."""
_TEXTS: Final = (
    "Step 1: x = 3.",
    " two  spaces \n\n\n\n and\tlines\r\n",
    "HTTP_ERROR: 1234567!?\n\n",
    "é漢字🙂 ки",
    '{"a": [1, true]}\n',
)


def refuse_other_tokens(path: Path, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer whose other files change the tokens of its ``tokenizer.json``.

    Raises:
        CheckpointError: a file adds a token, or a setting changes how text is cut. The sentence names it.
    """
    settings = read_settings(path)
    for token, index in _added_tokens(path, settings):
        if tokenizer.token_to_id(token) != index:
            raise CheckpointError(f"{path}: token {one_line(token)!r} is not in tokenizer.json as {index}; {CURE}")
    _refuse_prefix_space(path, settings, tokenizer)
    if not settings or not (path / "tokenizer.json").exists():
        return
    fast = load_fast(path)
    raw = Tokenizer.from_str(tokenizer.to_str())
    raw.no_truncation()
    raw.no_padding()
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | set(_named_tokens(settings))
    for text in (*_TEXTS, *(f"a {token} b{token}c" for token in sorted(special))):
        if list(raw.encode(text, add_special_tokens=False).ids) != fast(text, add_special_tokens=False)["input_ids"]:
            raise CheckpointError(f"{path}: tokenizer_config.json changes the tokens of {one_line(text)!r}; {CURE}")


def text_prefix(path: Path, tokenizer: Tokenizer, bos_token: str) -> str:
    """The special tokens that a tokenizer puts before a text by itself.

    Where ``tokenizer.json`` leaves that open, it is ``bos_token``, unless ``add_bos_token`` is false.

    Raises:
        CheckpointError: ``add_bos_token`` and ``tokenizer.json`` disagree.
    """
    settings = read_settings(path)
    wanted = settings.get("add_bos_token")
    follows = isinstance(wanted, bool) and str(settings.get("tokenizer_class")).startswith(FOLLOW_ADD_BOS)
    if follows or tokenizer.post_processor is None:
        return "" if wanted is False else bos_token
    special, plain = (tokenizer.encode("a", add_special_tokens=added) for added in (True, False))
    before = len(special.ids) - len(plain.ids)
    while before and special.ids[before : before + len(plain.ids)] != plain.ids:
        before -= 1
    if isinstance(wanted, bool) and wanted != bool(before):
        raise CheckpointError(
            f"{path}: tokenizer_config.json has add_bos_token {json.dumps(wanted)}, tokenizer.json the opposite; {CURE}"
        )
    return "".join(map(str, special.tokens[:before]))


def read_settings(path: Path) -> dict[str, Any]:
    """``tokenizer_config.json``, empty if there is none."""
    file = path / "tokenizer_config.json"
    return _json(file) if file.exists() else {}


def load_fast(path: Path) -> Any:
    """Transformers' tokenizer over all files of a directory; it runs no code of the checkpoint's own."""
    try:
        return PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:
        raise CheckpointCorrupt(f"{path}: its tokenizer cannot be loaded: {one_line(str(error), 300)}") from error


def _added_tokens(path: Path, settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Tokens and ids that the files name beside the vocabulary."""
    decoder = settings.get("added_tokens_decoder")
    for index, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and str(index).isdecimal():
            yield str(token.get("content")), int(index)
    if (path / "added_tokens.json").exists():
        yield from ((token, index) for token, index in _json(path / "added_tokens.json").items())


def _named_tokens(settings: dict[str, Any]) -> Iterator[str]:
    """Special tokens by their role. Padding is not among them: no text holds it."""
    roles = ("bos_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")
    more = [settings.get(name) for name in ("additional_special_tokens", "extra_special_tokens")]
    listed = [token for tokens in more for token in (tokens.values() if isinstance(tokens, dict) else tokens or ())]
    for token in (*map(settings.get, roles), *listed):
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text:
            yield text


def _refuse_prefix_space(path: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> None:
    wanted = settings.get("add_prefix_space")
    tokens = tokenizer.encode("a", add_special_tokens=False).tokens
    if isinstance(wanted, bool) and tokens and wanted != tokens[0].startswith(SPACES):
        raise CheckpointError(
            f"{path}: tokenizer_config.json has add_prefix_space {json.dumps(wanted)} and tokenizer.json the opposite; "
            f"{CURE}"
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{file} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(data, dict):
        raise CheckpointCorrupt(f"{file} must be an object")
    return data
