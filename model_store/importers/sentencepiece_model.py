"""Reads a sentencepiece model as a tokenizer of the ``tokenizers`` library, and checks that both give the same ids.

The normalisation follows transformers' converter for Llama. ``legacy`` is its setting: whether the space before a text
is also put behind each special token. Checkpoints without the setting were trained with it.
"""

import random
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import generate_merges

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line

_SPACE: Final = "▁"
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # ModelProto.SentencePiece.Type
_CLASSES: Final = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")
"""Classes that give sentencepiece's ids; others shift them."""
_SAMPLES: Final = (
    "Step 1: 16 - 3 = 13 eggs, i.e. 13.50 $ a day.",
    "  two  spaces, a\ttab\n\n\nand new lines \n",
    "наверно, 多分 naïve \ufb01nance \uff26\uff55ll \u00bd e\u0301 🙂\u200d\u00a0",
    "def f(x):\n    return x**2  # \\frac{1}{2}<|x|>",
)
_DRAWN: Final = 200
"""Texts of random pieces that are compared beside the samples, so that all parts of the vocabulary are."""


def read_sentencepiece(file: Path, settings: dict[str, Any], added: Collection[str] = ()) -> Tokenizer:
    """The tokenizer of a sentencepiece model.

    ``settings`` are those of ``tokenizer_config.json``. ``added`` are the tokens that are found before sentencepiece
    sees a text.

    Raises:
        CheckpointError: sentencepiece is not installed, or the file is no model that can be read with the same ids.
    """
    kind = settings.get("tokenizer_class") or "LlamaTokenizer"
    if str(kind).removesuffix("Fast") not in _CLASSES:
        raise CheckpointError(
            f"{file}: a tokenizer.json is built for {', '.join(_CLASSES)} only, not for tokenizer_class "
            f"{one_line(str(kind))}; save the checkpoint with a fast tokenizer"
        )
    library, proto = _parsed(file)
    proto.normalizer_spec.add_dummy_prefix &= settings.get("add_prefix_space") is not False
    tokenizer, legacy = Tokenizer(_model(proto)), settings.get("legacy") is not False
    _normalise(tokenizer, proto.normalizer_spec, legacy=legacy)
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
            for piece in proto.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ]
    )
    original = library.SentencePieceProcessor(model_proto=proto.SerializeToString())
    _refuse_other_ids(file, tokenizer, original, [text for text in _texts(proto, added) if legacy or text[0] != " "])
    return tokenizer


def _normalise(tokenizer: Tokenizer, spec: Any, *, legacy: bool) -> None:
    """Sets what is done with a text, or the part of it between two special tokens, before it is split."""
    parts: list[Any] = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        parts += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if legacy:
        parts += [normalizers.Prepend(_SPACE)] if spec.add_dummy_prefix else []
        parts += [normalizers.Replace(" ", _SPACE)]
    else:
        scheme = "first" if spec.add_dummy_prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)
    tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])


def _parsed(file: Path) -> tuple[Any, Any]:
    """The library and the model in a file, as its message of protobuf."""
    try:
        library, messages = import_module("sentencepiece"), import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # ImportError, or VersionError of protobuf
        raise CheckpointError(
            f"{file} is read by sentencepiece and protobuf; pip install 'agentprm[import]' brings them"
        ) from error
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except Exception as error:  # DecodeError of protobuf, which may be absent
        raise CheckpointCorrupt(f"{file} is no sentencepiece model") from error
    if not proto.pieces:
        raise CheckpointCorrupt(f"{file} is no sentencepiece model")
    if proto.trainer_spec.model_type not in (_UNIGRAM, _BPE) or proto.trainer_spec.treat_whitespace_as_suffix:
        raise CheckpointError(f"{file} is a sentencepiece model of a kind that is not read; save a fast tokenizer")
    return library, proto


def _model(proto: Any) -> models.BPE | models.Unigram:
    spec = proto.trainer_spec
    if spec.model_type == _UNIGRAM:
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        return models.Unigram(pieces, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback)
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces}
    unmerged = {piece.piece for piece in proto.pieces if piece.type not in (_NORMAL, _USER_DEFINED)}
    merges = generate_merges(vocabulary, scores, skip_tokens=unmerged)
    return models.BPE(
        vocab=vocabulary,
        merges=merges,
        unk_token=proto.pieces[spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
    )


def _texts(proto: Any, added: Collection[str]) -> list[str]:
    """The samples, texts of random pieces of the vocabulary, and texts around the model's own symbols."""
    draw = random.Random(0)
    pieces = [piece.piece for piece in proto.pieces if piece.type == _NORMAL]
    drawn = ["".join(draw.choices(pieces, k=20)) for _ in range(_DRAWN)] if pieces else []
    symbols = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED and piece.piece not in added]
    around = [f"a{symbol}b {symbol} c" for symbol in symbols[:_DRAWN]]
    return [*_SAMPLES, *(text.replace(_SPACE, " ") for text in drawn + around)]


def _refuse_other_ids(file: Path, tokenizer: Tokenizer, original: Any, texts: Sequence[str]) -> None:
    for text in texts:
        if tokenizer.encode(text, add_special_tokens=False).ids != original.encode(text):
            raise CheckpointError(
                f"{file}: a tokenizer.json built from it gives {one_line(text, 60)!r} other ids than sentencepiece; "
                "save the checkpoint with a fast tokenizer"
            )
