"""The samples of an Inspect ``.eval`` log, one at a time.

The log is a zip archive with ``header.json`` and a file for each sample. Newer versions of Inspect compress with
Zstandard, which Python's zipfile reads from 3.14 on only; pyarrow decompresses it.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from agentprm.errors import InvalidRequest
from agentprm.rollouts import parse
from training.rollouts.places import Fault, Place

_ZSTANDARD: Final = 93  # method of the zip format
_LOCAL_HEADER: Final = 30  # bytes before the name in a member's own header, which ends in the lengths of name and extra


def samples(path: Path) -> Iterator[tuple[Place, Any] | Fault]:
    """Yields each sample as a log of one sample, beside the header of the log."""
    try:
        with zipfile.ZipFile(path) as archive:
            header = _header(archive)
            of_samples = [name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")]
            for number, name in enumerate(of_samples, start=1):
                place = Place(path, number, "sample")
                try:
                    yield place, {**header, "samples": [parse(_read(archive, name))]}
                except (InvalidRequest, zipfile.BadZipFile) as error:
                    yield Fault(place, str(error))
    except (InvalidRequest, KeyError, RuntimeError, zipfile.BadZipFile) as error:  # RuntimeError: it is encrypted
        yield Fault(Place(path), f"it is no log of Inspect: {error}")


def _header(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Returns what the log says of the run; a log that was not finished has it in another place."""
    name = "header.json" if "header.json" in archive.namelist() else "_journal/start.json"
    header = parse(_read(archive, name))
    if not isinstance(header, dict):
        raise InvalidRequest(f"{name} is no JSON object")
    return header


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    member = archive.getinfo(name)
    if member.compress_type != _ZSTANDARD:
        return archive.read(member)
    with Path(str(archive.filename)).open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        compressed = pa.py_buffer(file.read(member.compress_size))
    with pa.CompressedInputStream(pa.BufferReader(compressed), "zstd") as stream:
        return bytes(stream.read())
