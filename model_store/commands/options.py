"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Final

import typer

from model_store.importers.presets import PRESETS

BUNDLED: Final = Path(__file__).parents[1] / "checkpoints"


def _known_preset(name: str | None) -> str | None:
    if name is not None and name not in PRESETS:
        raise typer.BadParameter(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
    return name


StoreOption = Annotated[Path, typer.Option("--store", help="Directory of the store.", show_default="the bundled one")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
SourceArgument = Annotated[
    str, typer.Argument(help="A directory, or owner/name@commit or owner/name@refs/pr/N of the hub.")
]
SubfolderOption = Annotated[str, typer.Option(help="The folder of the source that holds the checkpoint.")]
ConfigFromOption = Annotated[
    str | None, typer.Option(help="The source of config.json and the tokenizer, if the checkpoint has none of its own.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        callback=_known_preset,
        metavar="PRESET",
        help=f"The family, if the files do not identify it: {', '.join(PRESETS)}.",
    ),
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="A JSON file with score and template, for a family without a preset.")
]
SeparatorOption = Annotated[
    str | None,
    typer.Option(
        callback=lambda text: None if text is None else text.replace("\\n", "\n").replace("\\t", "\t"),
        help="Text after each step that the model was trained with, for trl-prm; \\\\n is a newline.",
        show_default="a newline",
    ),
]
BaseOption = Annotated[str | None, typer.Option(help="The checkpoint that an adapter belongs to.")]
ReferenceOption = Annotated[str | None, typer.Option(help="The checkpoint that a log-ratio compares with.")]
BetaOption = Annotated[float | None, typer.Option(help="The factor of a log-ratio.")]
ContextOption = Annotated[
    int | None, typer.Option("--context-length", help="Most tokens of an item.", show_default="as config.json says")
]
CheckOption = Annotated[
    Path | None,
    typer.Option("--check", help="A JSON file with items and their scores by the authors' code."),
]
