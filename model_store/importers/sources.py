"""A source as the importer reads it: safetensors, ``config.json`` and ``tokenizer.json`` in one directory.

A source that has them is read in place. For any other, a directory of links is laid out, with what is missing in it:
weights converted from ``.bin``, a tokenizer built from its older files, or both files of another source.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from model_store.importers.layout import (
    ADAPTER_CONFIG,
    ADAPTER_SINGLE,
    CONFIG,
    INDEX,
    SINGLE,
    TOKENIZER,
    TOKENIZER_FILES,
    read_object,
)
from model_store.importers.pickles import bin_files, convert
from model_store.importers.tokenizer_building import build_tokenizer, lacks_tokenizer_json
from model_store.importers.vocabulary import fit_vocabulary

_TEMPLATE: Final = "chat_template.jinja"
_PROCESSOR_TEMPLATE: Final = "chat_template.json"
_TAKEN: Final = (CONFIG, "generation_config.json", *TOKENIZER_FILES)
"""Files that ``config_from`` brings; the source's own are left out."""


class Readable(NamedTuple):
    """A directory that the importer can read, and a sentence for each change made to the source."""

    path: Path
    notes: tuple[str, ...] = ()


@contextmanager
def readable(source: Path, scratch: Path, config_from: Path | None = None, step_token: str = "") -> Iterator[Readable]:
    """Lays out a source for the importer, in a directory of its own within ``scratch`` if it has to change.

    ``step_token`` is what the family's training code adds to the tokenizer of ``config_from``, if anything.

    Raises:
        CheckpointError: its weights cannot be converted, or its tokenizer cannot be built.
    """
    settings = config_from or source
    old_weights, old_tokenizer, template = (
        only_bin(source),
        lacks_tokenizer_json(settings),
        processor_template(settings),
    )
    if not (old_weights or old_tokenizer or template or config_from):
        yield Readable(source)
        return
    with TemporaryDirectory(dir=scratch, prefix=".source-") as directory:
        path, notes = Path(directory) / source.resolve().name, []
        if old_weights:
            files = convert(source, path)
            notes.append(f"weights converted from .bin: {', '.join(file.name for file in files)}")
        _link(source, path, leave_out=_TAKEN if config_from else ())
        if config_from:
            _link(config_from, path, only=_TAKEN)
        if old_tokenizer:
            used = build_tokenizer(path, path / TOKENIZER)
            notes.append(f"{TOKENIZER} built from {used}")
        if template:
            (path / _TEMPLATE).write_text(template, encoding="utf-8")
            notes.append(f"the chat template is that of {_PROCESSOR_TEMPLATE}")
        if config_from:
            notes += fit_vocabulary(path, step_token)
        yield Readable(path, tuple(notes))


def processor_template(path: Path) -> str:
    """The chat template that a processor of text and images keeps, if the tokenizer has none; else empty."""
    template = read_object(path / _PROCESSOR_TEMPLATE).get("chat_template")
    if (path / _TEMPLATE).exists() or read_object(path / "tokenizer_config.json").get("chat_template"):
        return ""
    return template if isinstance(template, str) else ""


def only_bin(source: Path) -> bool:
    """Returns whether the weights of a directory are ``.bin`` alone, as far as transformers knows the files' names."""
    names = (ADAPTER_SINGLE,) if (source / ADAPTER_CONFIG).exists() else (SINGLE, INDEX)
    return bool(bin_files(source)) and not any((source / name).exists() for name in names)


def _link(source: Path, into: Path, *, only: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()) -> None:
    """Links the files of a directory that ``into`` does not have yet; of all or ``only`` of some."""
    into.mkdir(exist_ok=True)
    for file in source.iterdir():
        wanted = file.is_file() and file.name not in leave_out and (not only or file.name in only)
        if wanted and not (into / file.name).exists():
            (into / file.name).symlink_to(file.resolve())
