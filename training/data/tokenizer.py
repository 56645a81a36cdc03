"""The word-level tokenizer of a small world: one token per word, item id, number or punctuation mark.

Item ids stay whole (``dark_oak_fence_gate``): with names split into words, the small model ranked steps worse than
no model at all.
"""

from collections.abc import Iterable
from typing import Final

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from model_store.format.template import Template

PAD: Final = "<pad>"
UNKNOWN: Final = "<unk>"
END_OF_TASK: Final = "<eot>"
END_OF_OBSERVATION: Final = "<eoo>"
END_OF_ACTION: Final = "<eoa>"

TEMPLATE: Final = Template(
    begin="", task=("", END_OF_TASK), observation=("", END_OF_OBSERVATION), action=("", END_OF_ACTION)
)


def build_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Returns a tokenizer that knows the words of ``texts``; the same words in any order give the same ids."""
    splitter = Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    special = [PAD, UNKNOWN, END_OF_TASK, END_OF_OBSERVATION, END_OF_ACTION]
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(words - set(special))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(special)
    return tokenizer
