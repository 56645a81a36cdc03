"""``python -m service.score_cache`` as an operator runs it, and scores in Redis as the service stores them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, NamedTuple
from unittest.mock import patch

from redis import Redis

from model_store.format.store import Store
from service.score_cache.__main__ import app
from service.score_cache.keys import Key, KeyScope
from service.score_cache.values import pack
from service.settings import CHECKPOINTS

PASSWORD = "correct-horse"
DEMO, ORM = (Store(CHECKPOINTS).resolve(name).manifest for name in ("textcraft-demo", "textcraft-demo-orm"))
GONE = "sha256:" + "0123456789abcdef" * 4
"""Digest of a checkpoint that is not in the store any more."""


class Server(NamedTuple):
    url: str
    client: Redis


class Done(NamedTuple):
    status: int
    out: str
    err: str


def command(*arguments: str, **settings: str) -> Done:
    """Runs the command in this process, which spares the start of another."""
    out, err = StringIO(), StringIO()
    with patch.dict(os.environ, environment(settings), clear=True), redirect_stdout(out), redirect_stderr(err):
        try:
            app(arguments, prog_name="python -m service.score_cache")
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def process(*arguments: str, **settings: str) -> Done:
    """Runs the command as an operator does."""
    done = subprocess.run(
        [sys.executable, "-m", "service.score_cache", *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("AGENTPRM_")}
    return others | {f"AGENTPRM_{name.upper()}": value for name, value in settings.items()}


def answer(*arguments: str, **settings: str) -> str:
    """Returns the output of a command that succeeds."""
    done = command(*arguments, **settings)
    assert (done.status, done.err) == (0, "")
    return done.out


def report(*arguments: str, **settings: str) -> dict[str | None, int]:
    """Returns the scores of each checkpoint from the JSON output of a command."""
    found: dict[str, Any] = json.loads(answer(*arguments, "--json", **settings))
    assert found["scores"] == sum(row["scores"] for row in found["checkpoints"])
    return {row["checkpoint"]: row["scores"] for row in found["checkpoints"]}


def complaint(*arguments: str, **settings: str) -> str:
    """Returns the error of a command that fails: one line, without the password."""
    done = command(*arguments, **settings)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("agentprm: ")
    assert done.err.count("\n") == 1
    assert PASSWORD not in done.err
    return done.err


def score_keys(namespace: str, digest: str, number: int) -> list[Key]:
    """Returns keys of scores, each of another task."""
    scope = KeyScope(namespace, digest, 1, "float32")
    return [scope.begin([task]).extend([1]).key for task in range(number)]


def fill(client: Redis, namespace: str, digest: str, number: int) -> None:
    """Stores scores as the service does."""
    pipeline = client.pipeline(transaction=False)
    for key in score_keys(namespace, digest, number):
        pipeline.set(key, pack(key, 0.5))
    pipeline.execute()


def number_of_keys(client: Redis, prefix: str) -> int:
    return sum(1 for _ in client.scan_iter(match=f"{prefix}*", count=1000))
