"""Attacks the socket side of a server: others must be served meanwhile, and at its end nobody may be reset.

    python -m tests.stress.connections

The servers are real processes with the bundled checkpoint, the first with 256 file descriptors. The exit status is 1 if
an aim is missed, with a sentence each. It takes about two minutes.
"""

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Final
from urllib.parse import urlsplit

from service.http.limits import WRITE_SECONDS
from service.settings import CHECKPOINTS
from testbed.processes import PATIENCE, START_SECONDS, Server, free_port, serve_program, wait_until

DESCRIPTORS: Final = 256
MANY: Final = 4096
START: Final = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}));"
    "from service.__main__ import main; sys.exit(main())"
)
SILENT: Final = 2000
HEADER_BYTES: Final = 100 << 20
READERS: Final = 32
LARGE: Final = "/docs/assets/swagger-ui-bundle.js"
SCRAPES: Final = 100
CALLERS: Final = 200
STOPS: Final = 2
P95_SECONDS: Final = 0.25
"""The bound on a probe's p95, each over a new connection."""
HEADER_CPU_SECONDS: Final = 0.05
SHARED_COST: Final = 0.4
"""CPU of a scrape among a hundred at once, as a share of that of a lone one."""
BODY: Final = b'{"items": [{"task": "Craft a stick.", "steps": [{"observation": "", "action": "get 2 bamboo"}]}]}'
STEP: Final = (
    b"POST /score_step HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``missed`` is why the aim is missed, empty if it is not."""

    what: str
    measured: str
    missed: str = ""


@contextmanager
def server(descriptors: int) -> Iterator[Server]:
    settings = {"AGENTPRM_MODEL_STORE": str(CHECKPOINTS), "AGENTPRM_MODELS": "demo", "AGENTPRM_LOG_LEVEL": "error"}
    port = free_port()
    environment = {**settings, "AGENTPRM_PORT": str(port), "AGENTPRM_CPU_THREADS": "1"}
    with serve_program("agentprm", ["-c", START.format(descriptors)], port, environment) as running:
        yield running


def connect(running: Server, received: int | None = None) -> socket.socket:
    parts, connection = urlsplit(running.url), socket.socket()
    if received is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    connection.settimeout(PATIENCE)
    try:
        connection.connect((parts.hostname, parts.port))
    except OSError:
        connection.close()
        raise
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def get(path: str, *, close: bool = True) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{'Connection: close' if close else 'A: b'}\r\n\r\n".encode()


def ask(running: Server, request: bytes) -> str:
    """Sends a request over a new connection. Returns its status, or how it failed."""
    try:
        connection = connect(running)
    except OSError:  # also a reset, if it stops listening in this moment; nothing was sent
        return "refused"
    try:
        with connection:
            connection.sendall(request)
            return read_to_end(connection)[9:12].decode() or "no reply"
    except OSError as error:
        return type(error).__name__


def probe(running: Server, what: str, times: int = 100) -> Row:
    """Asks ``/health`` over new connections: every one is due an answer, and soon."""
    seconds, outcomes = list[float](), Counter[str]()
    for _ in range(times):
        started = time.perf_counter()
        outcomes[ask(running, get("/health"))] += 1
        seconds.append(time.perf_counter() - started)
    p95 = quantiles(seconds, n=20)[-1]
    wrong = outcomes.total() - outcomes["200"]
    missed = f"{wrong} of {times} probes were not answered beside {what}: {dict(outcomes)}" if wrong else ""
    if p95 > P95_SECONDS:
        missed = f"p95 of a probe beside {what} is {p95:.3f} s, over {P95_SECONDS} s"
    return Row(f"a probe beside {what}, p95", f"{1000 * p95:.1f} ms", missed)


def silence(running: Server) -> Row:
    """Opens far more connections than there are descriptors, and sends nothing."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as background:
        opened = background.submit(lambda: [stack.enter_context(connect(running)) for _ in range(SILENT)])
        opened.result(timeout=PATIENCE)
        time.sleep(1.5)  # the last of them are idle for long enough to make room
        return probe(running, f"{SILENT} silent connections")


def header_flood(running: Server) -> Row:
    """Sends one endless header line."""
    before, sent = running.cpu_seconds(), 0
    with connect(running) as connection:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nA: ")
            while sent < HEADER_BYTES:
                sent += connection.send(b"a" * (1 << 20))
        except OSError:
            pass
    cost = running.cpu_seconds() - before
    missed = f"{sent >> 20} MiB of a header cost {cost:.2f} s" if cost > HEADER_CPU_SECONDS else ""
    if sent >= HEADER_BYTES:
        missed = f"{HEADER_BYTES >> 20} MiB of one header were accepted"
    return Row("an endless header line, CPU", f"{1000 * cost:.0f} ms, {sent / (1 << 20):.1f} MiB taken", missed)


def slow_readers(running: Server) -> list[Row]:
    """Asks for megabytes and reads nothing."""
    with ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(connect(running, received=4096)).sendall(get(LARGE, close=False) * 8)
        beside = probe(running, f"{READERS} callers who take no reply")
        before = running.metric("agentprm_connections_ended_total", reason="write_time")
        limit = 2 * WRITE_SECONDS + 5  # the last look before it may just have seen progress
        try:
            seconds = wait_until(lambda: ended(running) >= READERS, "they were not cut off", limit, pause=0.5)
        except TimeoutError as error:
            return [beside, Row("callers who take no reply", "never cut off", str(error))]
    return [beside, Row("callers who take no reply, cut off after", f"{seconds:.0f} s ({before:.0f} at first)")]


def ended(running: Server) -> float:
    return running.metric("agentprm_connections_ended_total", reason="write_time")


def scrapes(running: Server) -> Row:
    """Compares the CPU of a scrape alone with that of one among a hundred at once."""
    alone = cost_of_scrapes(running, 1, 50)
    at_once = cost_of_scrapes(running, SCRAPES, 5)
    share = at_once / alone
    missed = f"a scrape among {SCRAPES} costs {share:.0%} of a lone one" if share > SHARED_COST else ""
    return Row(f"a scrape, CPU alone and among {SCRAPES}", f"{1000 * alone:.1f} ms, {1000 * at_once:.1f} ms", missed)


def cost_of_scrapes(running: Server, at_once: int, times: int) -> float:
    before = running.cpu_seconds()
    for _ in range(times):
        with ExitStack() as stack:
            connections = [stack.enter_context(connect(running)) for _ in range(at_once)]
            for connection in connections:
                connection.sendall(get("/metrics"))
            for connection in connections:
                read_to_end(connection)
    return (running.cpu_seconds() - before) / at_once / times


def stop_under_load() -> Row:
    """Sends SIGTERM while callers open one connection after the other. Whoever connects is due a reply."""
    outcomes = Counter[str]()
    for _ in range(STOPS):
        with server(MANY) as running, ThreadPoolExecutor(CALLERS) as threads:
            asked = [threads.submit(ask_until_refused, running) for _ in range(CALLERS)]
            time.sleep(1)  # of load
            os.kill(running.pid, signal.SIGTERM)
            for future in asked:
                outcomes += future.result(timeout=START_SECONDS)
    strange = set(outcomes) - {"200", "429", "503", "refused"}
    missed = f"at the end callers saw {sorted(strange)}: a reply or a refused connection is due" if strange else ""
    told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    return Row(f"{STOPS} times SIGTERM under {CALLERS} callers", told, missed)


def ask_until_refused(running: Server) -> Counter[str]:
    outcomes, give_up = Counter[str](), time.monotonic() + PATIENCE
    while not outcomes["refused"] and time.monotonic() < give_up:
        outcomes[ask(running, STEP)] += 1
    return outcomes


def attacks() -> Iterator[Row]:
    with server(DESCRIPTORS) as running:
        yield silence(running)
        yield header_flood(running)
        yield scrapes(running)
        yield from slow_readers(running)
        left = running.metric("agentprm_connections")
        missed = f"{left:.0f} connections are still open when nobody has any" if left > 1 else ""
        yield Row("open connections afterwards", f"{left:.0f}", missed)
    yield stop_under_load()


def main() -> int:
    complaints = []
    for row in attacks():
        print(f"{row.what:52} {row.measured}", flush=True)
        if row.missed:
            complaints.append(row.missed)
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
