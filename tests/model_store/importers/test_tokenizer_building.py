"""Checkpoints without ``tokenizer.json``: it is built from older files and gives the ids of the original tokenizer."""

import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig

from model_store.errors import CheckpointError
from model_store.format.store import Store
from model_store.importers import sentencepiece_model
from model_store.importers.layout import TOKENIZER
from model_store.importers.tokenizer_building import build_tokenizer
from tests.model_store.authors import STEPS, TASK
from tests.model_store.authors_of_logits import make_language_model, pair_at
from tests.model_store.importers.importing import add, refused, served_promises
from tests.model_store.tiny_checkpoints import CHATML, CHATML_TOKENS, CORPUS, byte_level, whole

TEXTS = (
    *CORPUS,
    "  She's got 1234 eggs,\n\n\tdon't  you?  \n",
    "naïve e\u0301 наверно 多分 🙂\u200d <|im_start|>user\n13<|im_end|>\n",
    "<s>Step 1 ки</s> + -  [PRM] <pad>",
    "",
    " ",
)
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def qwen(special: Sequence[str]) -> Tokenizer:
    """A small tokenizer of Qwen2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = pre_tokenizers.Split(Regex(QWEN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def write_old_files(path: Path, tokenizer: Tokenizer, **settings: Any) -> None:
    """Replaces ``tokenizer.json`` by what slow tokenizers saved."""
    model = json.loads(tokenizer.to_str())["model"]
    path.mkdir(exist_ok=True)
    (path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    added = {token: tokenizer.token_to_id(token) for token in CHATML_TOKENS}
    (path / "added_tokens.json").write_text(json.dumps(added))
    special = {"additional_special_tokens": list(CHATML_TOKENS), "eos_token": "<|endoftext|>"}
    (path / "special_tokens_map.json").write_text(json.dumps(special))
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / TOKENIZER).unlink(missing_ok=True)


def built(path: Path) -> Tokenizer:
    build_tokenizer(path, path / "built.json")
    return Tokenizer.from_file(str(path / "built.json"))


def byte_pairs(model: dict[str, Any], word: str) -> Iterator[int]:
    """The ids of a word in the byte alphabet: the best pair is merged until none is left."""
    ranks, parts = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}, list(word)
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = next(index for index, pair in enumerate(pairwise(parts)) if pair == best)
        parts[at : at + 2] = ["".join(best)]
    return (model["vocab"][part] for part in parts)


@pytest.mark.parametrize(
    "settings", [{"tokenizer_class": "Qwen2Tokenizer"}, {"tokenizer_class": "Qwen2TokenizerFast"}, {}]
)
def test_vocabulary_and_merges_give_the_ids_of_the_tokenizer_that_they_are_from(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    original = qwen(CHATML_TOKENS)
    write_old_files(tmp_path, original, **settings)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    tokenizer = built(tmp_path)
    for text in TEXTS:
        assert whole(tokenizer, text) == whole(original, text), text


def test_vocabulary_and_merges_give_the_ids_of_plain_byte_pair_merging(tmp_path: Path) -> None:
    original = qwen(CHATML_TOKENS)
    write_old_files(tmp_path, original, tokenizer_class="Qwen2Tokenizer")
    tokenizer, model = built(tmp_path), json.loads(original.to_str())["model"]
    for text in TEXTS[:-4]:
        words = original.pre_tokenizer.pre_tokenize_str(unicodedata.normalize("NFC", text))
        assert whole(tokenizer, text) == [token for word, _ in words for token in byte_pairs(model, word)]


def test_a_checkpoint_with_old_tokenizer_files_scores_as_with_the_new_one(store: Store, classifier: Path) -> None:
    qwen(CHATML_TOKENS).save(str(classifier / TOKENIZER))
    expected = add(Store(classifier.parent / "plain"), classifier).raw
    original = Tokenizer.from_file(str(classifier / TOKENIZER))
    write_old_files(classifier, original, tokenizer_class="Qwen2Tokenizer", chat_template=CHATML)
    imported = add(store, classifier)
    assert imported.raw == expected
    assert imported.notes == ("tokenizer.json built from vocab.json and merges.txt",)
    assert not (classifier / TOKENIZER).exists()


def wrong_id(path: Path) -> None:
    (path / "added_tokens.json").write_text('{"<|im_start|>": 7}')


def wrong_kind(path: Path) -> None:
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "PhiTokenizer"}')


def wrong_vocabulary(path: Path) -> None:
    (path / "vocab.json").write_text("[1]")


def wrong_tokens(path: Path) -> None:
    (path / "added_tokens.json").write_text('{"<|im_start|>": "first"}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_id, "its added token '<|im_start|>' has id 7, but would be"),
        (wrong_kind, "not for tokenizer_class PhiTokenizer; save the checkpoint with a fast tokenizer"),
        (wrong_vocabulary, r"vocab\.json and merges\.txt cannot be used"),
        (wrong_tokens, "its added tokens cannot be read"),
    ],
)
def test_old_files_that_would_give_other_ids_are_refused(
    store: Store, classifier: Path, change: Any, message: str
) -> None:
    write_old_files(classifier, qwen(CHATML_TOKENS), tokenizer_class="Qwen2Tokenizer", chat_template=CHATML)
    change(classifier)
    refused(store, classifier, message.replace("|", r"\|"))


@pytest.mark.parametrize("error", [ImportError, RuntimeError], ids=["absent", "unfit for protobuf"])
def test_a_sentencepiece_model_without_the_library_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[Exception]
) -> None:
    def unusable(name: str) -> Any:
        raise error(name)

    monkeypatch.setattr(sentencepiece_model, "import_module", unusable)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"sentencepiece and protobuf; pip install 'agentprm\[import\]'"):
        built(tmp_path)


# Sentencepiece models, trained here; the original tokenizer is sentencepiece's own.


@pytest.fixture
def sentencepiece() -> Any:
    pytest.importorskip("sentencepiece")
    return import_module("sentencepiece")


def train(library: Any, path: Path, **options: Any) -> Any:
    """Writes ``tokenizer.model``; returns the original tokenizer."""
    path.mkdir(exist_ok=True)
    out = io.BytesIO()
    lines = [line for text in CORPUS for line in text.splitlines() if line]
    shape: dict[str, Any] = {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True}
    llama = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "hard_vocab_limit": False}
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20), model_writer=out, minloglevel=2, **{**shape, **llama, **options}
    )
    (path / "tokenizer.model").write_bytes(out.getvalue())
    return library.SentencePieceProcessor(model_proto=out.getvalue())


KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Gemma": {"user_defined_symbols": ["[PRM]", "\n\n", "▁▁"], "add_dummy_prefix": False},
    "unigram": {"model_type": "unigram", "vocab_size": 330},
    "normalised": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentencepiece_model_gives_the_ids_of_sentencepiece(sentencepiece: Any, tmp_path: Path, kind: str) -> None:
    original = train(sentencepiece, tmp_path, **KINDS[kind])
    tokenizer = built(tmp_path)
    for text in TEXTS:
        if "<s>" not in text and "\n" not in text[-1:]:
            assert tokenizer.encode(text, add_special_tokens=False).ids == original.encode(text), text


@pytest.mark.parametrize(("settings", "token"), [({}, "▁"), ({"legacy": True}, "▁"), ({"legacy": False}, "H")], ids=str)
def test_the_space_behind_a_special_token_follows_the_setting(
    sentencepiece: Any, tmp_path: Path, settings: dict[str, bool], token: str
) -> None:
    train(sentencepiece, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokens = built(tmp_path).encode("<s>How many are left?", add_special_tokens=False).tokens
    assert tokens[0] == "<s>"
    assert tokens[1].startswith(token)


def test_tokens_added_to_a_sentencepiece_model_keep_their_ids(sentencepiece: Any, tmp_path: Path) -> None:
    original = train(sentencepiece, tmp_path)
    size = original.get_piece_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": size + 1, "[PRM]": size}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<pad>", "lstrip": False}}))
    ids = whole(built(tmp_path), "Step 1 [PRM]<pad></s>")
    assert ids[-3:] == [size, size + 1, original.piece_to_id("</s>")]
    assert ids[:-3] == original.encode("Step 1 ")


def test_a_checkpoint_with_a_sentencepiece_model_scores_by_its_ids(
    sentencepiece: Any, store: Store, tmp_path: Path
) -> None:
    """Math-Shepherd, with the ids that sentencepiece itself gives."""
    source = tmp_path / "source"
    original = train(sentencepiece, source)
    size = original.get_piece_size()
    make_language_model(source, LlamaConfig, byte_level([]), bos="<s>", vocab_size=size)
    (source / TOKENIZER).unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "legacy": True}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    ids = [original.bos_id(), *original.encode(f"{TASK} " + "\n".join(f"{step} ки" for step in STEPS))]
    tags = [index for index, token in enumerate(ids) if token == original.piece_to_id("▁ки")]
    expected = pair_at(source, ids, [original.piece_to_id("▁+"), original.piece_to_id("▁-")], tags)
    imported = add(store, source, preset="math-shepherd")
    assert imported.notes == ("tokenizer.json built from tokenizer.model",)
    assert served_promises(imported.checkpoint, STEPS) == pytest.approx(expected, abs=1e-5)


def test_a_file_that_is_no_sentencepiece_model_is_refused(sentencepiece: Any, tmp_path: Path) -> None:
    for content in (b"", b"IQ== 0\nIg== 1\n"):  # the second is tiktoken's
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(CheckpointError, match="is no sentencepiece model"):
            built(tmp_path)


def test_a_model_that_cannot_be_built_with_the_same_ids_is_refused(sentencepiece: Any, tmp_path: Path) -> None:
    """Sentencepiece puts no space behind its own symbols; a text between added tokens begins with one."""
    train(sentencepiece, tmp_path, user_defined_symbols=["[PRM]"])
    with pytest.raises(CheckpointError, match="other ids than sentencepiece; save the checkpoint with a fast"):
        built(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text('{"additional_special_tokens": ["[PRM]"]}')
    assert "[PRM]" in built(tmp_path).encode("a [PRM]b").tokens, "then it is found before sentencepiece sees a text"
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "NllbTokenizer"}')
    with pytest.raises(CheckpointError, match="not for tokenizer_class NllbTokenizer"):
        built(tmp_path)
