import signal
import socket
import subprocess
import sys

import httpx
import pytest

from testbed import processes
from testbed.processes import HOST, Server, free_port, serve_program, stop, wait_until

EPHEMERAL = 32_768  # Linux takes the ports of clients from here on


def test_free_ports_differ_and_lie_below_those_of_clients() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) + 10_000 < EPHEMERAL  # a node of a Redis cluster takes that port too


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    tried = [taken, free]
    monkeypatch.setattr(processes, "_given", set())
    monkeypatch.setattr(processes._random, "randrange", lambda *_: tried.pop(0))
    with socket.create_server((HOST, taken)):
        assert free_port() == free


def test_waiting_has_an_end() -> None:
    with pytest.raises(TimeoutError, match="the server did not answer within 0 s"):
        wait_until(lambda: False, "the server did not answer", 0)


def test_a_program_that_ends_is_not_waited_for() -> None:
    with (
        pytest.raises(RuntimeError, match="ended with status 3"),
        serve_program("broken", ["-c", "raise SystemExit(3)"], free_port(), {}),
    ):
        pass


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(process, seconds=0.1)
        assert process.returncode == -signal.SIGKILL


def test_a_metric_is_the_sum_of_the_samples_with_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '# TYPE t counter\nt{model="a",source="computed"} 2.0\nt{model="b",source="computed"} 3.0\nt{source="x"} 9.0\n'
    )
    reply = httpx.Response(200, text=f"{text}tt 4.0\n", request=httpx.Request("GET", "http://one"))
    monkeypatch.setattr(httpx, "get", lambda _, **__: reply)
    server = Server("one", "http://one", 1)
    assert server.metric("t", source="computed") == 5
    assert server.metric("tt") == 4
    with pytest.raises(LookupError):
        server.metric("ttt")
