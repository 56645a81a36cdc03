"""Files as records: JSON lines, JSON, gzip, Parquet, Arrow and directories of Hugging Face ``datasets``.

A record is what one line, row or document holds, parsed but not judged: ``formats`` knows what it means.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from agentprm.errors import AgentPRMError, InvalidRequest
from agentprm.rollouts import parse
from training.rollouts.eval_zip import samples
from training.rollouts.places import Fault, Place

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".traj", ".parquet", ".arrow", ".eval")
"""Files that a directory is searched for; the first four also with ``.gz``."""
_OF_DATASETS: Final = ("dataset_info.json", "state.json", "dataset_dict.json")
_ROWS: Final = 1024  # rows that are held in Python's objects at once
_JSON_FIELDS: Final = ("messages", "tools", "steps", "conversations", "metadata")
"""Fields that tables often hold as JSON text, because their values have no one type."""


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Returns the files to read: those named, and of a directory those with a known suffix, by the order of paths.

    A file that is named twice is read once.

    Raises:
        AgentPRMError: a path does not exist, or a directory holds no such file.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise AgentPRMError(f"{path} does not exist")
        found = sorted(filter(_is_data, path.rglob("*"))) if path.is_dir() else [path]
        if not found:
            raise AgentPRMError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
        for file in found:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _is_data(path: Path) -> bool:
    if path.name in _OF_DATASETS or path.name.startswith(("cache-", ".")):
        return False
    return path.name.removesuffix(".gz").endswith(SUFFIXES) and path.is_file()


def records(path: Path) -> Iterator[tuple[Place, Any] | Fault]:
    """Yields the records of a file with their places, and a fault for each that cannot be parsed.

    Raises:
        OSError: the file cannot be opened.
    """
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _rows(path, pq.ParquetFile(path).iter_batches(_ROWS))
        elif name.endswith(".arrow"):
            yield from _rows(path, _arrow_batches(path))
        elif name.endswith(".eval"):
            yield from samples(path)
        elif name.endswith((".json", ".traj")):
            yield from _document(path)
        else:
            yield from _lines(path)
    except (pa.ArrowException, EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Fault(Place(path), f"the file is damaged or of another kind: {' '.join(str(error).split())}")


def _open(path: Path) -> Any:
    return gzip.open(path) if path.name.endswith(".gz") else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[Place, Any] | Fault]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            place = Place(path, number)
            try:
                yield place, parse(line.rstrip(b"\r\n"))
            except InvalidRequest as error:
                yield Fault(place, str(error))


def _document(path: Path) -> Iterator[tuple[Place, Any] | Fault]:
    """Yields the entries of a list, or one record; a file of several values is one of JSON lines."""
    with _open(path) as file:
        text = file.read()
    try:
        value = parse(text)
    except InvalidRequest as error:
        if b"\n" in text.strip() and _is_json(text.lstrip().partition(b"\n")[0]):
            yield from _lines(path)
        else:
            yield Fault(Place(path), str(error))
        return
    if isinstance(value, list):
        yield from ((Place(path, number, "entry"), entry) for number, entry in enumerate(value, start=1))
    else:
        yield Place(path), value


def _is_json(line: bytes) -> bool:
    try:
        parse(line)
    except InvalidRequest:
        return False
    return True


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yields the batches of a file of Arrow's stream format, which ``datasets`` writes, or of its file format."""
    with pa.memory_map(str(path)) as file:
        if file.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(file)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        else:
            file.seek(0)
            yield from pa.ipc.open_stream(file)


def _rows(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Place, Any] | Fault]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            for row in batch.slice(start, _ROWS).to_pylist():
                number += 1
                place = Place(path, number, "row")
                try:
                    yield place, {name: _parsed(name, value) for name, value in _without_nulls(row).items()}
                except ValueError as error:
                    yield Fault(place, str(error))


def _without_nulls(value: Any) -> Any:
    """Returns a value without the fields that a table has because other rows have them."""
    if isinstance(value, dict):
        return {name: _without_nulls(held) for name, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


def _parsed(name: str, value: Any) -> Any:
    if name not in _JSON_FIELDS or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{name} is a text but not JSON: {error}") from None
