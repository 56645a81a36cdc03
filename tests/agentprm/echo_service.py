"""A small scoring service as a process of its own, whose scores tell who was answered, and on which connection.

``raw`` belongs to the text of the last action, ``progress`` is the caller's port. Actions are instructions, too:
    hold N        the reply waits until N of these requests are there
    hold NAME     the reply waits until somebody sends "release NAME"
    await close P the reply waits until the connection from port P is closed
    swap          the reply has the ids of another request
"""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zlib import crc32

PATIENCE = 60.0
"""Seconds to wait for another request; only what fails waits so long."""
MODEL = {"name": "echo", "version": "1", "digest": "sha256:0"}
USAGE = {"tokens": 1, "computed": 1, "prefix_cache": 0, "score_cache": 0}


def raw_score(action: str) -> float:
    return crc32(action.encode()) / 2**32


class Marks:
    """Events that a request waits for and another one, or the end of a connection, sets."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, threading.Event] = {}
        self._held = 0

    def event(self, name: str) -> threading.Event:
        with self._lock:
            return self._events.setdefault(name, threading.Event())

    def obey(self, action: str) -> None:
        verb, _, name = action.partition(" ")
        if verb == "hold" and name.isdigit():
            self._hold(int(name))
        elif verb == "hold":
            self.event(f"held {name}").set()
            self.event(name).wait(PATIENCE)
        elif verb == "release":
            self.event(name).set()
        elif verb == "await":
            self.event(name).wait(PATIENCE)

    def _hold(self, number: int) -> None:
        with self._lock:
            self._held += 1
            last = self._held % number == 0
        if last:
            self.event("all are here").set()
        else:
            self.event("all are here").wait(PATIENCE)


class EchoService(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.marks = Marks()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EchoService

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        results = [self._result(item) for item in body["items"]]
        reply = json.dumps({"model": MODEL, "results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def finish(self) -> None:
        super().finish()
        self.server.marks.event(f"close {self.client_address[1]}").set()

    def log_message(self, *_: Any) -> None:
        pass

    def _result(self, item: Any) -> dict[str, Any]:
        action = item["steps"][-1]["action"]
        self.server.marks.obey(action)
        scores = {"promise": 0.5, "progress": self.client_address[1], "raw": raw_score(action)}
        return {"id": "another" if action == "swap" else item["id"], **scores, "usage": USAGE}


@contextmanager
def echo_service() -> Iterator[str]:
    """Runs the service as a process; yields its URL."""
    command = [sys.executable, "-m", "tests.agentprm.echo_service"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    service = EchoService()
    print(service.server_port, flush=True)
    service.serve_forever()
