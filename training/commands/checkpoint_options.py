"""The arguments and options of the commands that take a published checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

Reference = Annotated[str, typer.Argument(help="Alias, name or name@version.")]
StorePath = Annotated[Path, typer.Option(help="Directory of the store.")]
Rollouts = Annotated[list[Path], typer.Option(help="Rollout files, or directories that are searched for them.")]
