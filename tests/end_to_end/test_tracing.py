"""A collector that is down or silent, and the service as a user starts it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from agentprm import Client, Step, Trajectory
from testbed.processes import PATIENCE
from tests.end_to_end.conftest import started

REQUESTS = 40

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@contextmanager
def refusing() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("down", [refusing, silent])
def test_while_the_collector_is_down_scores_are_answered_one_line_tells_it_and_the_drain_ends(
    down: Callable[[], AbstractContextManager[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for queue in ("BSP", "BLRP"):  # full at once
        for name, value in (("SCHEDULE_DELAY", "1"), ("MAX_QUEUE_SIZE", "8"), ("MAX_EXPORT_BATCH_SIZE", "4")):
            monkeypatch.setenv(f"OTEL_{queue}_{name}", value)
    with down() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with started(tmp_path, None, otel="events") as (process, address):
            with Client(address, max_retries=0) as client:
                for number in range(REQUESTS):
                    assert 0 <= client.score(Trajectory("Craft.", (Step("", f"get {number}"),))).promise <= 1
            process.terminate()
            assert process.wait(timeout=PATIENCE) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert 1 <= len([line for line in lines if " opentelemetry." in line]) <= 2, "one for spans, one for events"
