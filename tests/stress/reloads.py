"""Swaps models under load: no request may fail, and the memory of unloaded models must come back.

    python -m tests.stress.reloads --times 50

The server is a real process over a copy of the bundled store, whose alias ``demo`` alternates between two checkpoints.
The exit status is 1 if anything is wrong, with a sentence for each.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random
from threading import Event
from typing import Final

import httpx

from agentprm import Client, Step, Trajectory
from model_store.format.store import Store
from service.access.api_keys import new_key
from service.settings import CHECKPOINTS
from testbed.processes import Server, serve_agentprm, wait_until
from tests.stress.overload import resident_mb

CALLERS: Final = 4
BEFORE: Final = 4
"""Swaps before the memory is first measured; by then each checkpoint has been loaded and unloaded."""
MEMORY_SLACK: Final = 0.05
SETTINGS: Final = {"AGENTPRM_SCORE_CACHE_ITEMS": "0", "AGENTPRM_PREFIX_CACHE_BYTES": str(8 * 1024**2)}
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    answers: Counter[str]
    """Requests by the model that answered."""
    failures: Counter[str]
    """Failed requests by error."""
    megabytes: Sequence[float]
    """Resident memory after each swap, without the first ``BEFORE``."""
    left: float
    """Number of models in the metrics at the end."""


def run(times: int) -> Outcome:
    with _store() as (root, token), serve_agentprm(root, "demo", _settings(root)) as server:
        references = Store(root).references()
        swaps = islice(cycle(references), BEFORE + times)
        stop = Event()
        with ThreadPoolExecutor(CALLERS) as threads:
            callers = [threads.submit(_ask, server.url, token, seed, stop) for seed in range(CALLERS)]
            try:
                megabytes = [_swap(server, token, reference) for reference in swaps]
            finally:
                stop.set()
        answers, failures = _sums(callers)
        return Outcome(answers, failures, megabytes[BEFORE:], server.metric("agentprm_model_info"))


def broken(outcome: Outcome) -> list[str]:
    first, last = outcome.megabytes[0], outcome.megabytes[-1]
    complaints = {
        f"requests failed: {dict(outcome.failures)}": outcome.failures,
        f"{len(outcome.answers)} checkpoints answered instead of two": len(outcome.answers) != 2,
        f"{outcome.left:g} models are known at the end instead of one": outcome.left != 1,
        f"the server holds {last:.0f} MB after {first:.0f} MB": last > first * (1 + MEMORY_SLACK),
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


@contextmanager
def _store() -> Iterator[tuple[Path, str]]:
    """Yields a copy of the store, a file with the hash of a key in its directory, and the key."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "store"
        shutil.copytree(CHECKPOINTS, root)
        token, line = new_key("ops", "score,admin")
        _keys(root).write_text(line, encoding="utf-8")
        yield root, token


def _keys(root: Path) -> Path:
    return root.parent / "keys"


def _settings(root: Path) -> dict[str, str]:
    return {**SETTINGS, "AGENTPRM_API_KEYS_FILE": str(_keys(root))}


def _swap(server: Server, token: str, reference: str) -> float:
    """Swaps the model; returns the server's memory in MB once the earlier model is unloaded."""
    reply = httpx.post(
        f"{server.url}/admin/alias",
        json={"alias": "demo", "model": reference},
        headers={"authorization": f"Bearer {token}"},
        timeout=PATIENCE,
    )
    reply.raise_for_status()
    served = [f"{model['name']}@{model['version']}" for model in reply.json()["models"]]
    assert served == [reference], served
    wait_until(lambda: server.metric("agentprm_model_info") == 1, "the model before has not left", PATIENCE)
    return resident_mb(server.pid)


def _ask(url: str, token: str, seed: int, stop: Event) -> tuple[Counter[str], Counter[str]]:
    random, answers, failures = Random(seed), Counter[str](), Counter[str]()
    with Client(url, api_key=token, max_retries=0, timeout=PATIENCE) as client:
        while not stop.is_set():
            steps = tuple(Step("Got 1 stick", f"get {random.randrange(10**6)} stick") for _ in range(4))
            try:
                answers[client.score_step([Trajectory("Craft a stick.", steps)]).model.name] += 1
            except Exception as error:  # noqa: BLE001  (counts every failure)
                failures[f"{type(error).__name__}: {error}"] += 1
    return answers, failures


def _sums(callers: Sequence[Future[tuple[Counter[str], Counter[str]]]]) -> tuple[Counter[str], Counter[str]]:
    answers, failures = zip(*(caller.result(PATIENCE) for caller in callers), strict=True)
    return sum(answers, Counter[str]()), sum(failures, Counter[str]())


def main() -> int:
    parser = argparse.ArgumentParser(description="Swaps models under load.")
    parser.add_argument("--times", type=int, default=50)
    times = parser.parse_args().times
    outcome = run(times)
    print(f"{times} swaps, {outcome.answers.total()} requests: {dict(outcome.answers)}")
    print(f"memory in MB after each swap: {' '.join(f'{size:.0f}' for size in outcome.megabytes)}")
    complaints = broken(outcome)
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
