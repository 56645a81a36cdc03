"""Checkpoints from the Hugging Face hub, at one commit: a branch or a tag could be another model tomorrow.

Of a repository only the files that an import reads are downloaded: configuration and tokenizer, and the weights as
safetensors, or as ``.bin`` where there are no safetensors.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from model_store.errors import CheckpointError, CheckpointNotFound, one_line
from model_store.importers.layout import (
    ADAPTER_BIN,
    ADAPTER_CONFIG,
    ADAPTER_SINGLE,
    BIN_INDEX,
    BIN_SINGLE,
    CONFIG,
    INDEX,
    SINGLE,
    TOKENIZER_FILES,
    indexed_files,
)

_CONFIG_FILES: Final = (CONFIG, "generation_config.json", ADAPTER_CONFIG, INDEX, BIN_INDEX, *TOKENIZER_FILES)
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PULL_REQUEST: Final = re.compile(r"refs/pr/\d+")
_TIMEOUT: Final = 30.0
"""Seconds to wait for the hub to say which commit a pull request is at."""


def pinned(source: str, endpoint: str | None = None) -> str:
    """Returns a source that cannot move: ``owner/name@refs/pr/N`` becomes the commit that it points to now.

    Raises:
        CheckpointError: the hub does not tell.
    """
    repository, _, revision = source.partition("@")
    if Path(source).is_dir() or not _PULL_REQUEST.fullmatch(revision) or not _REPOSITORY.fullmatch(repository):
        return source
    with _refusals(source):
        commit = HfApi(endpoint=endpoint).model_info(repository, revision=revision, timeout=_TIMEOUT).sha
    if not _COMMIT.fullmatch(commit or ""):
        raise CheckpointError(f"the hub does not say which commit {source} is")
    return f"{repository}@{commit}"


def find_source(source: str, subfolder: str = "", *, weights: bool = True, endpoint: str | None = None) -> Path:
    """A local directory, or ``owner/name@commit`` downloaded into the hub's own cache; of either, ``subfolder``.

    Without ``weights``, only configuration and tokenizer are downloaded.

    Raises:
        CheckpointError: it is neither, names no full commit, or the repository is absent, gated or out of reach.
    """
    if subfolder and (PurePosixPath(subfolder).is_absolute() or ".." in PurePosixPath(subfolder).parts):
        raise CheckpointError(f"the subfolder {one_line(subfolder)!r} must be a path inside of {one_line(source)}")
    local = Path(source).is_dir()
    path = Path(source) if local else _download(source, subfolder, weights=weights, endpoint=endpoint)
    if not (path / subfolder).is_dir():
        where = f" in {one_line(subfolder)!r}" if subfolder else ""
        raise CheckpointNotFound(f"{one_line(source)} has no files of a checkpoint{where}")
    return path / subfolder


def _download(source: str, subfolder: str, *, weights: bool, endpoint: str | None) -> Path:
    repository, _, commit = source.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointNotFound(f"{one_line(source)!r} is neither a directory nor owner/name@commit of the hub")
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(
            f"{one_line(source)} needs @ and a commit of 40 hex digits, or @refs/pr/N: a branch could change"
        )

    def fetch(names: Sequence[str]) -> Path:
        wanted = [(PurePosixPath(subfolder) / name).as_posix() for name in names]
        deeper = (PurePosixPath(subfolder) / "*" / "*").as_posix()
        return Path(
            snapshot_download(
                repository, revision=commit, allow_patterns=wanted, ignore_patterns=[deeper], endpoint=endpoint
            )
        )

    with _refusals(source):
        root = fetch(_CONFIG_FILES)
        for names in _weight_names(root / subfolder) if weights else ():
            fetch(names)
            if any((root / subfolder).glob(names[0])):
                break
    return root


def _weight_names(path: Path) -> list[list[str]]:
    """Names that the weights may have, once the configuration files are in ``path``; the best come first."""
    if (path / ADAPTER_CONFIG).exists():
        return [[ADAPTER_SINGLE], [ADAPTER_BIN]]
    indexed, bin_indexed = indexed_files(path / INDEX), indexed_files(path / BIN_INDEX)
    return [names for names in ([SINGLE], indexed, [BIN_SINGLE], bin_indexed, ["*.safetensors"]) if names]


@contextmanager
def _refusals(source: str) -> Iterator[None]:
    """Turns what the hub refuses into one sentence."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every attempt
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(f"{source} is gated: accept its terms on the hub and log in there") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointNotFound(f"the hub has no {source}, or shows it only to others") from error
    except (HfHubHTTPError, OSError) as error:  # OSError: no connection, and nothing in the cache
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{source} cannot be downloaded: {one_line(why[0], 200)}") from error
