"""Checkpoints from the Hugging Face hub, at one commit: a branch or a tag could be another model tomorrow."""

import logging
import re
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from model_store.errors import CheckpointError, CheckpointNotFound, one_line

FILES: Final = ("*.safetensors", "*.json", "tokenizer*", "chat_template.jinja")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def find_source(source: str, endpoint: str | None = None) -> Path:
    """A local directory, or ``owner/name@commit`` downloaded into the hub's own cache.

    Raises:
        CheckpointError: it is neither, names no full commit, or the repository is absent, gated or out of reach.
    """
    if Path(source).is_dir():
        return Path(source)
    repository, _, commit = source.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise CheckpointNotFound(f"{one_line(source)!r} is neither a directory nor owner/name@commit of the hub")
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(f"{one_line(source)} needs @ and a commit of 40 hex digits: a branch could change")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every attempt
    try:
        path = snapshot_download(
            repository, revision=commit, allow_patterns=list(FILES), ignore_patterns=["*/*"], endpoint=endpoint
        )
    except GatedRepoError as error:
        raise CheckpointError(f"{source} is gated: accept its terms on the hub and log in there") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise CheckpointNotFound(f"the hub has no {source}, or shows it only to others") from error
    except (HfHubHTTPError, OSError) as error:  # OSError: no connection, and nothing in the cache
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{source} cannot be downloaded: {one_line(why[0], 200)}") from error
    return Path(path)
