"""``python -m service.score_cache``: shows and purges the scores that replicas share in Redis.

A replica that runs keeps what it has in its own memory, and writes what it computes from now on.
"""

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointNotFound, ManifestInvalid
from model_store.format.manifest import parse_manifest
from model_store.format.store import MANIFEST, Store
from service.score_cache.inspection import count, opened, purge
from service.score_cache.keys import short_digest
from service.settings import Settings, load_settings

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST: Final = re.compile(r"(sha256:)?[0-9a-f]{16,64}")


class NoRedis(AgentPRMError):
    """Neither the settings nor the arguments say where Redis is."""


class Row(NamedTuple):
    """The scores of one checkpoint; no name if it is not in the store."""

    checkpoint: str | None
    digest: str
    scores: int


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        namespace = given.namespace or settings.score_cache_namespace
        rows = _rows(given, settings, namespace)
    except AgentPRMError as error:
        _complain(error)
        return 1
    print(_as_json(given, namespace, rows) if given.json else _as_text(given, namespace, rows))
    return 0


def _rows(given: argparse.Namespace, settings: Settings, namespace: str) -> list[Row]:
    """Counts or purges; by name, and then what is not in the store."""
    url = given.url or settings.redis_url
    if not url:
        raise NoRedis("there is no Redis: set AGENTPRM_REDIS_URL or give --url")
    store = Store(settings.model_store)
    digest = find_digest(store, given.checkpoint) if given.checkpoint is not None else None
    scores = asyncio.run(_ask(url, namespace, digest, forget=not given.dry_run))
    if digest:
        scores.setdefault(short_digest(digest), 0)
    names = names_by_digest(store)
    rows = [Row(names.get(part), part, number) for part, number in scores.items()]
    return sorted(rows, key=lambda row: (row.checkpoint is None, row.checkpoint, row.digest))


async def _ask(url: str, namespace: str, digest: str | None, *, forget: bool) -> Counter[str]:
    async with opened(url) as server:
        return await (purge if forget else count)(server, namespace, digest)


def find_digest(store: Store, wanted: str) -> str:
    """The digest of a checkpoint by ``name``, ``name@version``, alias or digest, which need not be in the store.

    Raises:
        CheckpointError: it is neither a digest nor a sound checkpoint of the store.
    """
    try:
        return store.resolve(wanted).manifest.digest
    except CheckpointNotFound as error:
        if _DIGEST.fullmatch(digest := wanted.lower()):
            return digest
        raise CheckpointNotFound(f"{error}; a digest has 16 or more hex digits") from error


def names_by_digest(store: Store) -> dict[str, str]:
    """``name@version`` by part of digest. Nothing is hashed: only names are wanted, and weights are large."""
    names = {}
    for reference in store.references():
        path = store.root / reference.replace("@", "/") / MANIFEST
        try:
            manifest = parse_manifest(path.read_text(encoding="utf-8"))
        except (ManifestInvalid, OSError, UnicodeDecodeError) as error:
            _complain(f"{reference} cannot be recognised by its digest: {error}")
        else:
            names[short_digest(manifest.digest)] = manifest.reference
    return names


def _as_json(given: argparse.Namespace, namespace: str, rows: Sequence[Row]) -> str:
    report: dict[str, Any] = {"namespace": namespace, "scores": _total(rows)}
    if given.command == "purge":
        report["dry_run"] = given.dry_run
    return json.dumps(report | {"checkpoints": [row._asdict() for row in rows]}, indent=2)


def _as_text(given: argparse.Namespace, namespace: str, rows: Sequence[Row]) -> str:
    if not rows:
        return f"no scores in namespace {namespace}"
    return _table(rows) if given.command == "inspect" else _sentences(rows, dry_run=given.dry_run)


def _table(rows: Sequence[Row]) -> str:
    lines = [
        ("checkpoint", "digest", "scores"),
        *((row.checkpoint or "-", row.digest, f"{row.scores:,}") for row in rows),
        ("total", "", f"{_total(rows):,}"),
    ]
    names, digests, numbers = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(f"{name:{names}}  {digest:{digests}}  {number:>{numbers}}" for name, digest, number in lines)


def _sentences(rows: Sequence[Row], *, dry_run: bool) -> str:
    verb = "would forget" if dry_run else "forgot"
    lines = [
        f"{verb} {_scores(row.scores)} of {row.checkpoint or 'a checkpoint not in the store'} ({row.digest})"
        for row in rows
    ]
    return "\n".join(lines if len(rows) == 1 else [*lines, f"{verb} {_scores(_total(rows))} in all"])


def _scores(number: int) -> str:
    return f"{number:,} score" if number == 1 else f"{number:,} scores"


def _total(rows: Sequence[Row]) -> int:
    return sum(row.scores for row in rows)


def _complain(what: object) -> None:
    print(f"agentprm: {what}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.score_cache", description="Show or purge the scores in Redis."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help="Redis; AGENTPRM_REDIS_URL if not given, and hidden there from other users")
    common.add_argument("--namespace", type=_namespace, help="AGENTPRM_SCORE_CACHE_NAMESPACE if not given")
    common.add_argument("--json", action="store_true", help="print one JSON object")
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", parents=[common], help="count the scores of each checkpoint")
    inspect.set_defaults(checkpoint=None, dry_run=True)
    forget = commands.add_parser("purge", parents=[common], help="make Redis forget scores, without blocking it")
    which = forget.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", metavar="NAME[@VERSION]|ALIAS|DIGEST", help="those of one checkpoint")
    which.add_argument("--all", action="store_true", help="those of every checkpoint in the namespace")
    forget.add_argument("--dry-run", action="store_true", help="say what would be forgotten, forget nothing")
    return parser


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise argparse.ArgumentTypeError("1 to 64 letters, digits, '_', '.' and '-'")
    return text


if __name__ == "__main__":
    sys.exit(main())
