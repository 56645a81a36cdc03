"""The sources that an import names on its command line, on this machine."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from model_store.importers.hub import find_source, pinned
from model_store.importers.importer import ImportOptions


class Sources(NamedTuple):
    """Directories of the sources that an import reads, and their names as callers of the service may see them."""

    path: Path
    base: Path | None
    reference: Path | None
    config_from: Path | None
    base_model: str

    def options(self, options: ImportOptions) -> ImportOptions:
        """The options with these sources."""
        return replace(options, base_model=self.base_model, reference=self.reference, config_from=self.config_from)


def find_sources(
    source: str, subfolder: str, base: str | None, reference: str | None, config_from: str | None
) -> Sources:
    """The sources of a command line, downloaded from the hub where they are no directories.

    Raises:
        CheckpointError: one is not to be had.
    """
    source, base = pinned(source), pinned(base) if base else None
    config_from = pinned(config_from) if config_from else None
    return Sources(
        find_source(source, subfolder),
        find_source(base) if base else None,
        find_source(pinned(reference)) if reference else None,
        find_source(config_from, weights=False) if config_from else None,
        _origin(source, subfolder)
        + (f" merged into {_origin(base)}" if base else "")
        + (f" with the configuration of {_origin(config_from)}" if config_from else ""),
    )


def _origin(source: str, subfolder: str = "") -> str:
    """A source as callers of the service may see it: a directory's name without its path."""
    if Path(source).is_dir():
        return (Path(source) / subfolder).resolve().name
    return f"{source}/{subfolder}" if subfolder else source
