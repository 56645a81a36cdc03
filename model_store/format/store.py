"""A directory of checkpoints: publish atomically, resolve only what still hashes to its digest.

<root>/aliases.json                 {"demo": "textcraft-demo@1"}
<root>/<name>/<version>/prm.json    the manifest, in a Hugging Face directory (safetensors only)
<root>/.bases/                      the models that adapters belong to
"""

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from model_store.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, ManifestInvalid, one_line
from model_store.format.bases import find_base
from model_store.format.json_files import ENCODING, read_json
from model_store.format.manifest import Manifest, parse_manifest

MANIFEST: Final = "prm.json"
ALIASES: Final = "aliases.json"
REFERENCE: Final = "reference"
"""Directory within a checkpoint: the model that a ``log_ratio`` compares with, in the same layout."""
ADAPTER: Final = "adapter"
"""Directory within a checkpoint that is one of a base: the adapter as peft writes it."""
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PICKLES: Final = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory whose content agreed with its manifest's digest when it was resolved.

    ``base`` is the directory of the model that its adapter is merged into, if it is one.
    """

    path: Path
    manifest: Manifest
    base: Path | None = None


class Store:
    """Checkpoints under ``root``, named ``name@version``; a bare name means its newest version."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def reference(self, reference: str) -> str:
        """The ``name@version`` that an alias, ``name`` or ``name@version`` stands for now; its content is not read.

        Raises:
            CheckpointNotFound: there is none.
        """
        name, _, version = self.aliases().get(reference, reference).partition("@")
        version = version or self._newest(name)
        if not (self._path(name, version) / MANIFEST).is_file():
            raise self._not_found(reference)
        return f"{name}@{version}"

    def resolve(self, reference: str) -> Checkpoint:
        """The checkpoint behind an alias, ``name`` or ``name@version``.

        Raises:
            CheckpointNotFound: there is none, or it is an adapter and its base is not there.
            CheckpointCorrupt: the content does not hash to the digest, or holds a pickle, a link or remote code; or
                that of its base does not.
            ManifestInvalid: ``prm.json`` is incomplete, wrong, or for another name or version.
        """
        manifest = self.read_manifest(self.reference(reference))
        path = self._path(manifest.name, manifest.version)
        checkpoint = Checkpoint(path, manifest)
        refuse_changed(checkpoint)
        return replace(checkpoint, base=self._base(manifest))

    def publish(self, source: Path, manifest: Manifest) -> Checkpoint:
        """Copies ``source`` in as ``manifest.reference``: readers see all of it or nothing.

        Raises:
            CheckpointError: that version is there already; versions never change.
            CheckpointCorrupt: ``source`` holds a pickle, a link or remote code.
            CheckpointNotFound: it is an adapter, and its base is not in the store.
        """
        target = self.free_path(manifest.name, manifest.version)
        base = self._base(manifest)
        _refuse_unsafe(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".publish-") as scratch:
            staged = Path(scratch) / manifest.version
            shutil.copytree(source, staged)
            manifest = replace(manifest, digest=compute_digest(staged, manifest))
            (staged / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            for path in (staged, *staged.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)  # the service may run as another user
            staged.rename(target)
        return Checkpoint(target, manifest, base)

    def free_path(self, name: str, version: str) -> Path:
        """The path of a version to be published. Raises CheckpointError if it exists: versions never change."""
        target = self._path(name, version)
        if target.exists():
            raise CheckpointError(f"{name}@{version} is published already; a version never changes")
        return target

    def read_manifest(self, reference: str) -> Manifest:
        """The manifest of a ``name@version``; nothing else is read, nothing hashed. Raises as ``resolve`` does."""
        name, _, version = reference.partition("@")
        manifest = _read_manifest(self._path(name, version))
        if (manifest.name, manifest.version) != (name, version):
            raise ManifestInvalid(f"{self._path(name, version) / MANIFEST} says it is {one_line(manifest.reference)}")
        return manifest

    def references(self) -> list[str]:
        """Every ``name@version`` in the store, sorted."""
        return sorted(
            f"{path.parent.parent.name}@{path.parent.name}" for path in self.root.glob(f"[!.]*/[!.]*/{MANIFEST}")
        )

    def aliases(self) -> dict[str, str]:
        """Alias -> ``name@version``."""
        path = self.root / ALIASES
        if not path.exists():
            return {}
        aliases = read_json(path)
        if not isinstance(aliases, dict) or not all(isinstance(target, str) for target in aliases.values()):
            raise CheckpointError(f"{path} must map each alias to a name@version")
        return aliases

    def set_alias(self, alias: str, reference: str) -> None:
        """Points ``alias`` to a published ``name@version`` in one atomic step."""
        checkpoint = self.resolve(reference)
        aliases = {**self.aliases(), _checked(alias): checkpoint.manifest.reference}
        staged = self.root / f".{ALIASES}.{os.getpid()}"
        staged.write_text(json.dumps(aliases, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        staged.replace(self.root / ALIASES)

    def _base(self, manifest: Manifest) -> Path | None:
        base = manifest.adapter_of
        return None if base is None else find_base(self.root, manifest.reference, base)

    def _path(self, name: str, version: str) -> Path:
        return self.root / _checked(name) / _checked(version)

    def _newest(self, name: str) -> str:
        versions = [path.parent.name for path in (self.root / _checked(name)).glob(f"[!.]*/{MANIFEST}")]
        if not versions:
            raise self._not_found(name)
        return max(versions, key=natural_order)

    def _not_found(self, wanted: str) -> CheckpointNotFound:
        if not self.root.is_dir():
            return CheckpointNotFound(f"no checkpoint {wanted!r}: there is no directory {self.root.absolute()}")
        names = [*self.references(), *sorted(self.aliases())]
        nearest = difflib.get_close_matches(wanted, [*{name.partition("@")[0]: None for name in names}, *names], n=1)
        advice = f"; the nearest is {nearest[0]!r}" if nearest else ""
        return CheckpointNotFound(
            f"no checkpoint {wanted!r} in {self.root}{advice}; there are: {', '.join(names) or 'none'}"
        )


def refuse_changed(checkpoint: Checkpoint) -> None:
    """Checks that the content still agrees with the manifest's digest; reads all of it.

    Raises:
        CheckpointCorrupt: the content does not hash to the digest, or holds a pickle, a link or remote code.
    """
    path, manifest = checkpoint.path, checkpoint.manifest
    _refuse_unsafe(path)
    if (digest := compute_digest(path, manifest)) != manifest.digest:
        raise CheckpointCorrupt(
            f"{manifest.reference} has changed since it was published: its content hashes to {digest}, "
            f"its manifest says {one_line(manifest.digest)}"
        )


def compute_digest(path: Path, manifest: Manifest) -> str:
    """``sha256:...`` over every file below ``path`` but ``prm.json``, and over the manifest less its digest."""
    total = hashlib.sha256(manifest.content())
    for file in _files(path):
        name = file.relative_to(path).as_posix()
        if name != MANIFEST:
            with file.open("rb") as stream:
                total.update(f"\n{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
    return f"sha256:{total.hexdigest()}"


def _files(path: Path) -> Iterator[Path]:
    """Every file and link below ``path``. A link to a directory counts: its content would not be hashed otherwise."""
    return (file for file in sorted(path.rglob("*")) if file.is_symlink() or not file.is_dir())


def _read_manifest(path: Path) -> Manifest:
    try:
        return parse_manifest((path / MANIFEST).read_text(encoding=ENCODING))
    except ManifestInvalid as error:
        raise ManifestInvalid(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise ManifestInvalid(f"{path}: prm.json is not UTF-8; save it as UTF-8") from error


def _refuse_unsafe(path: Path) -> None:
    for file in _files(path):
        if file.is_symlink():
            raise CheckpointCorrupt(f"{file} is a link; a checkpoint holds plain files")
        if file.suffix in _PICKLES:
            raise CheckpointCorrupt(f"{file} may hold a pickle, which runs code when read; only safetensors are served")
        if file.suffix == ".py":
            raise CheckpointCorrupt(f"{file} is code; checkpoints that bring their own code are not served")


def _checked(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise CheckpointNotFound(f"{name!r} is no checkpoint name: letters, digits, '.', '_' and '-' only")
    return name


def natural_order(version: str) -> list[tuple[int, str]]:
    """A sort key that puts version 10 after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", version) if part]
