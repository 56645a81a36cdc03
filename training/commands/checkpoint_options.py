"""The arguments and options of the commands that take a published checkpoint."""

from pathlib import Path
from typing import Annotated

import typer


def _in_a_directory(path: Path | None) -> Path | None:
    """Refuses a file that cannot be written, before anything is computed for it."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no directory {path.parent}")
    return path


Reference = Annotated[str, typer.Argument(help="Alias, name or name@version.")]
StorePath = Annotated[Path, typer.Option(help="Directory of the store.")]
Rollouts = Annotated[list[Path], typer.Option(help="Rollout files, or directories that are searched for them.")]
Page = Annotated[
    Path | None, typer.Option("--report", callback=_in_a_directory, help="Write a page with plots to this file.")
]
Json = Annotated[Path | None, typer.Option("--json", callback=_in_a_directory, help="Write the figures to this file.")]
Plot = Annotated[
    Path | None, typer.Option(callback=_in_a_directory, help="Write a reliability plot (SVG) to this file.")
]
Out = Annotated[Path, typer.Option(callback=_in_a_directory, help="The file to write.")]
HeldOutOnly = Annotated[
    bool, typer.Option("--held-out-only", help="Leave out queries on the side of training of the checkpoint's split.")
]
