"""``python -m model_store``: checkpoints into the store, and what is in it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agentprm.errors import AgentPRMError
from model_store.commands.adding import add, inspect
from model_store.commands.changing import convert_weights, publish_directory, set_alias
from model_store.commands.looking import list_checkpoints, show_checkpoint, verify_checkpoints
from model_store.format.store import Store
from model_store.importers.presets import PRESETS

BUNDLED: Final = Path(__file__).parent / "checkpoints"


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        report = given.run(Store(given.store), given)
    except AgentPRMError as error:
        print(f"agentprm: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"agentprm: {error.filename or given.command}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(json.dumps(report.data, indent=2, ensure_ascii=False) if given.json else report.text)
    return 0 if report.fine else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_store", description="Checkpoints: add them, look at them.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", type=Path, default=BUNDLED, help="its directory; the one that is bundled if not given"
    )
    common.add_argument("--json", action="store_true", help="print one JSON value")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: object, help_: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common, *parents], help=help_, description=help_)
        made.set_defaults(run=run)
        return made

    foreign = _foreign()
    adding = command("add", add, "import a checkpoint: a directory, or owner/name@commit of the hub", foreign)
    adding.add_argument("--name", required=True)
    adding.add_argument("--version", required=True)
    command("inspect", inspect, "how a checkpoint would score: one to import, or one of the store", foreign)
    command("list", list_checkpoints, "every version in the store")
    command("show", show_checkpoint, "the manifest of one version").add_argument("reference")
    command("verify", verify_checkpoints, "hash versions, or all, against their digests").add_argument(
        "references", nargs="*"
    )
    command("publish", publish_directory, "publish a directory with a prm.json").add_argument("source", type=Path)
    alias = command("alias", set_alias, "point an alias to a version")
    alias.add_argument("alias")
    alias.add_argument("reference")
    converting = command("convert", convert_weights, "turn .bin weights into safetensors, in a process with limits")
    converting.add_argument("source", type=Path)
    converting.add_argument("into", type=Path)
    return parser


def _foreign() -> argparse.ArgumentParser:
    """What says how a foreign checkpoint is to be read."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("source", help="a directory, or owner/name@commit")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--preset", choices=list(PRESETS), help="its family, where its files do not tell")
    how.add_argument("--recipe", type=Path, help="a JSON file with score and template, for what no preset says")
    parser.add_argument("--base", help="the checkpoint that an adapter belongs to")
    parser.add_argument("--reference", help="the checkpoint that a log-ratio compares with")
    parser.add_argument("--beta", type=float, help="the factor of a log-ratio")
    parser.add_argument("--context-length", type=int, help="in tokens; what its config.json says if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
