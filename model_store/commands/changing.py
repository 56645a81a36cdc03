"""``publish``, ``add-base``, ``alias`` and ``convert``."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from model_store.commands.options import BUNDLED, JsonOption, SourceArgument, StoreOption
from model_store.commands.report import Report
from model_store.errors import CheckpointError, ManifestInvalid
from model_store.format.bases import add_base
from model_store.format.json_files import read_json
from model_store.format.manifest import parse_manifest
from model_store.format.store import MANIFEST, Store
from model_store.importers.hub import find_source, pinned
from model_store.importers.importer import stage_model
from model_store.importers.pickles import convert
from model_store.importers.sources import readable


def publish_directory(
    source: Annotated[Path, typer.Argument(help="A directory with a prm.json.")],
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Publish a directory with a prm.json.

    The directory has the layout of a version of the store; the digest is filled in.
    """
    file = source / MANIFEST
    data = read_json(file)
    if not isinstance(data, dict):
        raise ManifestInvalid(f"{file} must be an object")
    manifest = parse_manifest(json.dumps({**data, "digest": "not published"}))
    published = Store(store).publish(source, replace(manifest, digest=""))
    digest = published.manifest.digest
    text = f"published {manifest.reference}, {digest}"
    Report({"checkpoint": manifest.reference, "digest": digest}, text).show(as_json=as_json)


def add_base_model(source: SourceArgument, store: StoreOption = BUNDLED, as_json: JsonOption = False) -> None:
    """Bring the base of an adapter into the store.

    An adapter that was trained elsewhere names its base, and takes no other weights than those it was trained on.
    """
    root = Store(store).root
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root, prefix=".import-") as directory:
        scratch = Path(directory)
        with readable(find_source(pinned(source)), scratch) as plain:
            staged = scratch / "base"
            staged.mkdir()
            stage_model(plain.path, staged, None, has_recipe=True)
        digest = add_base(root, staged)
    Report({"source": source, "digest": digest}, f"{source} is the base {digest}").show(as_json=as_json)


def set_alias(
    alias: Annotated[str, typer.Argument(help="The name that is to point to the version.")],
    reference: Annotated[str, typer.Argument(help="Alias, name or name@version.")],
    store: StoreOption = BUNDLED,
    as_json: JsonOption = False,
) -> None:
    """Point an alias to a version."""
    checkpoints = Store(store)
    checkpoints.set_alias(alias, reference)
    target = checkpoints.aliases()[alias]
    Report({"alias": alias, "checkpoint": target}, f"{alias} is {target}").show(as_json=as_json)


def convert_weights(
    source: Annotated[Path, typer.Argument(help="A directory with .bin weights.")],
    into: Annotated[Path, typer.Argument(help="The directory to write; it must not be there yet.")],
    store: StoreOption = BUNDLED,  # noqa: ARG001  (every command takes it)
    as_json: JsonOption = False,
) -> None:
    """Turn .bin weights into safetensors.

    They are read in a process with limits, which accepts tensors only. The checkpoint's other files are copied.
    """
    with TemporaryDirectory(dir=into.parent, prefix=".convert-") as scratch:
        staged = Path(scratch) / "checkpoint"
        files = convert(source, staged)
        others = [*source.glob("*.json"), *source.glob("*.jinja"), source / "tokenizer.model", source / "merges.txt"]
        for file in others:
            if file.exists() and not (staged / file.name).exists() and not file.name.endswith(".bin.index.json"):
                (staged / file.name).write_bytes(file.read_bytes())
        if into.exists():
            raise CheckpointError(f"{into} is there already")
        staged.rename(into)
    names = [file.name for file in files]
    found = {"directory": str(into), "files": names}
    Report(found, f"wrote {', '.join(names)} to {into}").show(as_json=as_json)
