"""``python -m model_store``: adds checkpoints to a store, and shows and checks what is in it."""

import sys
from collections.abc import Callable, Sequence
from typing import Final

import typer

from agentprm.errors import AgentPRMError
from model_store.commands.adding import add, inspect
from model_store.commands.changing import add_base_model, convert_weights, publish_directory, set_alias
from model_store.commands.looking import list_checkpoints, show_checkpoint, verify_checkpoints

COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "add": add,
    "inspect": inspect,
    "list": list_checkpoints,
    "show": show_checkpoint,
    "verify": verify_checkpoints,
    "publish": publish_directory,
    "add-base": add_base_model,
    "alias": set_alias,
    "convert": convert_weights,
}

app: Final = typer.Typer(
    help="Adds checkpoints to a store, shows them and checks them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for a failure and 2 for arguments that cannot be used."""
    try:
        app(arguments, prog_name="python -m model_store")
    except SystemExit as ended:
        return int(ended.code or 0)
    except AgentPRMError as error:
        print(f"agentprm: {error}", file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"agentprm: {place}{error.strerror or error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
