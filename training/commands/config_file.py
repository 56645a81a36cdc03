"""Options of a command from a YAML file, with the names that they have on the command line."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml


def _take_as_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command's options; the command line wins over them."""
    if path is None:
        return None
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise typer.BadParameter(f"{path} must hold a mapping of option names to values, such as `gamma: 1.0`")
    context.default_map = _checked(context, path, options)
    return path


def _checked(context: typer.Context, path: Path, options: dict[Any, Any]) -> dict[str, Any]:
    names = {
        option.lstrip("-"): parameter.name
        for parameter in context.command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if parameter.name and parameter.param_type_name == "option"
    }
    taken = {str(name).replace("_", "-"): value for name, value in options.items()}
    if unknown := sorted(taken.keys() - names.keys()):
        raise typer.BadParameter(f"{path}: there is no option {unknown[0]!r}; there are: {', '.join(sorted(names))}")
    return {str(names[name]): value for name, value in taken.items()}


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_take_as_defaults,
        is_eager=True,
        help="A YAML file of options, by the names they have here. An option of the command line wins over it.",
    ),
]
"""Declare it first in a command; the command itself does not read it."""
