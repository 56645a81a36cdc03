"""Base models beside the checkpoints of a store: those that adapters are merged into, each named by its content.

<root>/.bases/<64 hex digits>/    config.json and safetensors
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_store.errors import CheckpointCorrupt, CheckpointNotFound, ManifestInvalid

BASES: Final = ".bases"
_KEPT: Final = ("config.json", "model.safetensors.index.json", "*.safetensors")


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """The model that an adapter is merged into when it is loaded: where it is from, and the hash of its files."""

    source: str
    digest: str


def check_adapter_base(base: AdapterBase) -> None:
    """Raises ManifestInvalid for a digest that no base can have."""
    kind, _, digits = base.digest.partition(":")
    if kind != "sha256" or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise ManifestInvalid("prm.json: adapter_of: digest must be sha256: and 64 hex digits")


def add_base(root: Path, source: Path) -> str:
    """Copies configuration and weights of a model into the store, whole or not at all, and returns their digest."""
    digest = base_digest(source)
    target = _path(root, digest)
    if target.is_dir():
        return digest
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".add-") as scratch:
        staged = Path(scratch) / "base"
        staged.mkdir()
        for file in _files(source):
            shutil.copyfile(file, staged / file.name)
            (staged / file.name).chmod(0o644)  # the service may run as another user
        staged.chmod(0o755)
        staged.rename(target)
    return digest


def find_base(root: Path, reference: str, base: AdapterBase) -> Path:
    """The directory of a base of the store; reads all of it.

    Raises:
        CheckpointNotFound: the store does not have it; the sentence says which command brings it.
        CheckpointCorrupt: its files have changed.
    """
    path = _path(root, base.digest)
    if not path.is_dir():
        raise CheckpointNotFound(
            f"{reference} is an adapter of {base.source}, which {root} does not have; "
            f"python -m model_store add-base {base.source} --store {root} brings it"
        )
    if (digest := base_digest(path)) != base.digest:
        raise CheckpointCorrupt(f"the base of {reference} has changed: {path} hashes to {digest}")
    return path


def base_digest(path: Path) -> str:
    """``sha256:...`` over configuration and weights of a model."""
    total = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            total.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{total.hexdigest()}"


def _files(path: Path) -> list[Path]:
    return sorted(file for pattern in _KEPT for file in path.glob(pattern))


def _path(root: Path, digest: str) -> Path:
    return root / BASES / digest.removeprefix("sha256:")
