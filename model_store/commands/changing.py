"""``publish``, ``alias`` and ``convert``."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from model_store.commands.report import Report
from model_store.errors import CheckpointError, ManifestInvalid, one_line
from model_store.format.manifest import parse_manifest
from model_store.format.store import MANIFEST, Store
from model_store.importers.pickles import convert


def publish_directory(store: Store, given: argparse.Namespace) -> Report:
    """A directory that is laid out as the store's are; the digest of its ``prm.json`` is filled in."""
    file = given.source / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(data, dict):
        raise ManifestInvalid(f"{file} must be an object")
    manifest = parse_manifest(json.dumps({**data, "digest": "not published"}))
    published = store.publish(given.source, replace(manifest, digest=""))
    found = {"checkpoint": manifest.reference, "digest": published.manifest.digest}
    return Report(found, f"published {manifest.reference}, {published.manifest.digest}")


def set_alias(store: Store, given: argparse.Namespace) -> Report:
    store.set_alias(given.alias, given.reference)
    target = store.aliases()[given.alias]
    return Report({"alias": given.alias, "checkpoint": target}, f"{given.alias} is {target}")


def convert_weights(_: Store, given: argparse.Namespace) -> Report:
    """``.bin`` weights as safetensors, with the checkpoint's other files beside them."""
    with TemporaryDirectory(dir=given.into.parent, prefix=".convert-") as scratch:
        staged = Path(scratch) / "checkpoint"
        files = convert(given.source, staged)
        for file in (*given.source.glob("*.json"), *given.source.glob("*.jinja")):
            if not (staged / file.name).exists() and not file.name.endswith(".bin.index.json"):
                (staged / file.name).write_bytes(file.read_bytes())
        if given.into.exists():
            raise CheckpointError(f"{given.into} is there already")
        staged.rename(given.into)
    names = [file.name for file in files]
    return Report({"directory": str(given.into), "files": names}, f"wrote {', '.join(names)} to {given.into}")
