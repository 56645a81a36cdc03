"""Padding as transformers' sequence classifiers see it: they read the last token of a row that is not ``pad_token_id``.

Trainers often set it to the token that ends a turn. The score then belongs to the token before that one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from model_store.text.jinja import can_write
from model_store.text.runs import Place, Run, RunTokenizer


def pad_token(
    config: Mapping[str, Any],
    score: Mapping[str, Any],
    template: Mapping[str, Any] | None,
    chat_texts: Sequence[str],
    tokenizer: Tokenizer,
) -> dict[str, int]:
    """``{"pad_token_id": id}`` if the padding of ``config.json`` can be the last token of an action, else ``{}``.

    Args:
        config: ``config.json``.
        score: the score of ``prm.json``; one that names a ``pad_token_id`` keeps it.
        template: the template of ``prm.json``; None for a chat template, which may end a chat in any text of its own.
        chat_texts: the texts of a chat template.
        tokenizer: the checkpoint's own.
    """
    pad = config.get("pad_token_id")
    names = config.get("architectures") or [""]
    reads_a_head = score.get("head") == "linear" and score.get("layers", ["score"]) == ["score"]
    if not str(names[0]).endswith("ForSequenceClassification") or not reads_a_head or "pad_token_id" in score:
        return {}
    if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
        return {}
    can_end = _is_written(pad, chat_texts, tokenizer) if template is None else _can_end(pad, template, tokenizer)
    return {"pad_token_id": pad} if can_end else {}


def _is_written(token: int, texts: Sequence[str], tokenizer: Tokenizer) -> bool:
    """Whether one of the texts holds a token, or people can write it."""
    added = tokenizer.get_added_tokens_decoder().get(token)
    return added is None or not added.special or any(can_write(text, added.content) for text in texts)


def _can_end(token: int, template: Mapping[str, Any], tokenizer: Tokenizer) -> bool:
    """Whether an action of the template can end in a token.

    Text after a special token is always the same. Before one it joins what the agent wrote, which can end in any token
    that is not special.
    """
    runs, text = RunTokenizer(tokenizer), template["action"][1]
    alone = template.get("tokenise", "segments") != "text"
    *_, last = (runs.boundary(text) if alone else runs.split(text)) or [""]
    special = {index for index, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    if not isinstance(last, str):
        return last[-1] == token
    if last == text:
        return token not in special
    return runs.encode([Run(last, Place.AFTER_SPECIAL)])[0][-1:] == [token]
