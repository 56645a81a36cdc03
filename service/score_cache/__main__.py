"""``python -m service.score_cache``: counts and purges the scores that replicas share in Redis.

A running replica keeps the scores in its own memory, and goes on writing new ones.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointNotFound, ManifestInvalid
from model_store.format.json_files import ENCODING
from model_store.format.manifest import parse_manifest
from model_store.format.store import MANIFEST, Store
from service.score_cache.inspection import count, open_server, purge
from service.score_cache.keys import short_digest
from service.settings import load_settings

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DIGEST: Final = re.compile(r"(sha256:)?[0-9a-f]{16,64}")
Command = Callable[..., Awaitable[Counter[str]]]  # count or purge


class NoRedis(AgentPRMError):
    """Neither the settings nor the options give the URL of Redis."""


class Row(NamedTuple):
    """Number of scores of one checkpoint. ``checkpoint`` is None if the store does not have it."""

    checkpoint: str | None
    digest: str
    scores: int


class Source(NamedTuple):
    """Redis with the namespace of its scores, and the store that names their checkpoints."""

    url: str
    namespace: str
    store: Store


class _Commands(TyperGroup):
    """The commands. An unknown one is not quoted in the error: it may be a URL with a password."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and not ctx.resilient_parsing:
            ctx.fail(f"no such command; there are: {', '.join(self.commands)}")
        return command


app = typer.Typer(
    cls=_Commands,
    help="Show or purge the scores in Redis.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _checked_namespace(namespace: str | None) -> str | None:
    if namespace is not None and not _NAMESPACE.fullmatch(namespace):
        raise typer.BadParameter("1 to 64 letters, digits, '_', '.' and '-'")
    return namespace


def _refuse_arguments(context: typer.Context) -> None:
    """Refuses what follows the options, without quoting it: it may be a URL with a password."""
    if context.args:
        raise typer.BadParameter("there are arguments without an option; the URL of Redis goes after --url")


UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="URL of Redis. Default: AGENTPRM_REDIS_URL, where other users do not see a password."),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", callback=_checked_namespace, help="Default: AGENTPRM_SCORE_CACHE_NAMESPACE."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_WITHOUT_ARGUMENTS: Final = {"allow_extra_args": True}


@app.command("inspect", context_settings=_WITHOUT_ARGUMENTS)
def inspect_scores(
    context: typer.Context, url: UrlOption = None, namespace: NamespaceOption = None, as_json: JsonOption = False
) -> None:
    """Count the scores of each checkpoint."""
    _refuse_arguments(context)
    with _errors_in_one_line():
        source = _source(url, namespace)
        rows = _rows(source, asyncio.run(_run_command(source, None, count)))
    print(_as_json(source, rows) if as_json else _table(rows) if rows else _no_scores(source))


@app.command("purge", context_settings=_WITHOUT_ARGUMENTS)
def purge_scores(
    context: typer.Context,
    *,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="NAME[@VERSION]|ALIAS|DIGEST", help="Scores of one checkpoint."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Scores of every checkpoint in the namespace.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, delete nothing.")] = False,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete scores from Redis without blocking it."""
    _refuse_arguments(context)
    if (checkpoint is not None) == every:
        raise typer.BadParameter("exactly one of --checkpoint and --all is needed")
    with _errors_in_one_line():
        source = _source(url, namespace)
        digest = None if checkpoint is None else find_digest(source.store, checkpoint)
        scores = asyncio.run(_run_command(source, digest, count if dry_run else purge))
        if digest:
            scores.setdefault(short_digest(digest), 0)
        rows = _rows(source, scores)
    if as_json:
        print(_as_json(source, rows, dry_run=dry_run))
    else:
        print(_sentences(rows, dry_run=dry_run) if rows else _no_scores(source))


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except AgentPRMError as error:
        _print_error(error)
        raise typer.Exit(1) from error


def _source(url: str | None, namespace: str | None) -> Source:
    """Returns Redis and the store. Raises SettingsError, or NoRedis if neither options nor settings name a URL."""
    settings = load_settings()
    if not (url := url or settings.redis_url):
        raise NoRedis("there is no Redis: set AGENTPRM_REDIS_URL or give --url")
    return Source(url, namespace or settings.score_cache_namespace, Store(settings.model_store))


async def _run_command(source: Source, digest: str | None, command: Command) -> Counter[str]:
    async with open_server(source.url) as server:
        return await command(server, source.namespace, digest)


def _rows(source: Source, scores: Counter[str]) -> list[Row]:
    """Rows sorted by name; checkpoints that are not in the store come last."""
    names = names_by_digest(source.store)
    rows = [Row(names.get(digest), digest, number) for digest, number in scores.items()]
    return sorted(rows, key=lambda row: (row.checkpoint is None, row.checkpoint, row.digest))


def find_digest(store: Store, wanted: str) -> str:
    """Returns the digest of a checkpoint, given by ``name``, ``name@version``, alias or digest.

    A digest need not be in the store.

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
    """Returns ``name@version`` by short digest. Weights are not hashed: they are large, and only names are needed."""
    names = {}
    for reference in store.references():
        path = store.root / reference.replace("@", "/") / MANIFEST
        try:
            manifest = parse_manifest(path.read_text(encoding=ENCODING))
        except (ManifestInvalid, OSError, UnicodeDecodeError) as error:
            _print_error(f"{reference} cannot be recognised by its digest: {error}")
        else:
            names[short_digest(manifest.digest)] = manifest.reference
    return names


def _as_json(source: Source, rows: Sequence[Row], **more: bool) -> str:
    report = {"namespace": source.namespace, "scores": _total(rows), **more}
    return json.dumps(report | {"checkpoints": [row._asdict() for row in rows]}, indent=2)


def _no_scores(source: Source) -> str:
    return f"no scores in namespace {source.namespace}"


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


def _print_error(what: object) -> None:
    print(f"agentprm: {what}", file=sys.stderr)


if __name__ == "__main__":
    app(prog_name="python -m service.score_cache")
