"""The proxy of the replicas, with its own configuration, in front of servers that answer with their name."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from testbed.processes import HOST, free_port, wait_until
from tests.deploy.files import ROOT

CONFIGURATION = ROOT / "deploy" / "compose" / "haproxy.cfg"
NAMES = ["a", "b", "c"]
TRAJECTORIES = [f"trajectory-{number}" for number in range(60)]

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is missing: apt-get install haproxy")


class Server(ThreadingHTTPServer):
    # On a busy machine connections are accepted late: where they do not fit, HAProxy would give the replica up.
    request_queue_size = 128


class Replica:
    """Answers every request with its name and the caller's address in ``X-Forwarded-For``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.dies_on_requests = False
        self.requests = 0
        replica = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if replica.ready else 503)
                self.end_headers()

            def do_POST(self) -> None:
                replica.requests += 1
                self.rfile.read(int(self.headers["content-length"]))
                if not replica.dies_on_requests:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(f"{replica.name} {self.headers['x-forwarded-for']}".encode())

            def log_message(self, *_: object) -> None: ...

        self._server = Server((HOST, 0), Answer)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(100)
            assert not self._thread.is_alive(), "a request is still answered"
            self._server.server_close()


class Proxy:
    """The proxy and its replicas by name."""

    def __init__(self, url: str, replicas: dict[str, Replica]) -> None:
        self.replicas = replicas
        # One connection a request: if a replica is lost, HAProxy closes a kept connection instead of answering 502.
        self._http = httpx.Client(base_url=url, headers={"Connection": "close"}, timeout=100)

    def ask(self, trajectory: str | None = None, **headers: str) -> httpx.Response:
        own = {} if trajectory is None else {"X-Trajectory-Id": trajectory}
        return self._http.post("/score_step", json={}, headers=own | headers)

    def who(self, trajectory: str | None = None) -> str:
        """Returns the name of the replica that answers."""
        return self.ask(trajectory).raise_for_status().text.split()[0]

    def close(self) -> None:
        self._http.close()


@contextmanager
def proxied(directory: Path, *, checks_seconds: int = 3600) -> Iterator[Proxy]:
    """Runs the proxy with its own configuration, except for its port and the addresses of the replicas."""
    with ExitStack() as stack:
        replicas = {name: Replica(name) for name in NAMES}
        for replica in replicas.values():
            stack.callback(replica.stop)
        servers = "".join(f"    server {replica.name} {HOST}:{replica.port}\n" for replica in replicas.values())
        port = free_port()
        text = CONFIGURATION.read_text(encoding="utf-8")
        for pattern, own in [
            (r"bind :8000", f"bind {HOST}:{port}"),
            (r"check inter 1s", f"check inter {checks_seconds}s"),
            (r" +server-template .*\n", servers),
        ]:
            text, count = re.subn(pattern, own, text)
            assert count == 1
        file = directory / "haproxy.cfg"
        file.write_text(text, encoding="utf-8")
        process = subprocess.Popen([str(HAPROXY), "-db", "-f", file], stdout=subprocess.DEVNULL)
        stack.callback(process.wait, timeout=100)
        stack.callback(process.kill)
        proxy = Proxy(f"http://{HOST}:{port}", replicas)
        stack.callback(proxy.close)
        wait_until(answers(lambda: proxy.who("any")), "the proxy did not answer")
        yield proxy


def answers(ask: Callable[[], Any]) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            ask()
        except httpx.HTTPError:
            return False
        return True

    return asked


def test_the_configuration_as_it_is_passes_haproxys_check() -> None:
    subprocess.run([str(HAPROXY), "-c", "-q", "-f", CONFIGURATION], check=True, timeout=100)


def test_a_trajectory_stays_on_one_replica_and_trajectories_spread(tmp_path: Path) -> None:
    with proxied(tmp_path) as stack, ThreadPoolExecutor(8) as threads:
        first = list(threads.map(stack.who, TRAJECTORIES))
        assert list(threads.map(stack.who, TRAJECTORIES)) == first
        assert all(first.count(name) >= len(TRAJECTORIES) / 10 for name in NAMES)


def test_without_the_header_a_caller_stays_on_one_replica(tmp_path: Path) -> None:
    with proxied(tmp_path) as stack:
        assert len({stack.who() for _ in range(10)}) == 1


def test_when_a_replica_refuses_connections_its_trajectories_move_and_no_other(tmp_path: Path) -> None:
    with proxied(tmp_path) as stack:
        before = {trajectory: stack.who(trajectory) for trajectory in TRAJECTORIES}
        stack.replicas["b"].stop()
        after = {trajectory: stack.who(trajectory) for trajectory in TRAJECTORIES}
    assert all(after[trajectory] == name for trajectory, name in before.items() if name != "b")
    assert {after[trajectory] for trajectory, name in before.items() if name == "b"} <= {"a", "c"}


def test_a_request_on_which_a_replica_died_is_not_passed_on_to_the_next(tmp_path: Path) -> None:
    with proxied(tmp_path) as stack:
        trajectory = next(name for name in TRAJECTORIES if stack.who(name) == "b")
        before = {name: replica.requests for name, replica in stack.replicas.items()}
        stack.replicas["b"].dies_on_requests = True
        # Twenty tries: whether HAProxy could send a request again depends on how much of its body it still holds.
        assert {stack.ask(trajectory).status_code for _ in range(20)} == {502}
        assert {name: replica.requests for name, replica in stack.replicas.items()} == before | {"b": before["b"] + 20}


def test_a_replica_that_is_not_ready_is_asked_no_more(tmp_path: Path) -> None:
    with proxied(tmp_path, checks_seconds=1) as stack:
        trajectory = next(name for name in TRAJECTORIES if stack.who(name) == "b")
        stack.replicas["b"].ready = False
        wait_until(lambda: stack.who(trajectory) != "b", "the replica is asked although it is not ready")
        stack.replicas["b"].ready = True
        wait_until(lambda: stack.who(trajectory) == "b", "the replica is ready and its trajectory does not come back")


def test_a_caller_cannot_choose_the_address_that_the_replicas_see(tmp_path: Path) -> None:
    with proxied(tmp_path) as stack:
        assert stack.ask("any", **{"X-Forwarded-For": "192.0.2.1"}).text.split()[1] == HOST
