"""Callers without keys are told apart by the address of their connection, which they cannot choose."""

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.queue.shares import PLACES_PER_FREE_PLACE
from testbed.processes import PATIENCE, wait_until
from tests.end_to_end.conftest import serving

BODY = {"items": [{"task": "Craft a stick.", "steps": [{"observation": "", "action": "get 2 bamboo"}]}]}

pytestmark = pytest.mark.timeout(300)  # it starts servers, which a busy machine does slowly


@pytest.mark.parametrize(("proxies", "status"), [(None, 429), ("127.0.0.1", 200)])
def test_a_caller_may_name_an_address_only_through_a_proxy_that_the_operator_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: str | None, status: int
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if proxies is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    with serving(tmp_path, max_requests=str(PLACES_PER_FREE_PLACE + 1)) as url, ExitStack() as held:
        for _ in range(PLACES_PER_FREE_PLACE):
            hold_a_place(url, held, "192.0.2.1")
        wait_until(lambda: running(url) == PLACES_PER_FREE_PLACE, "the places were not taken")
        headers = {"x-forwarded-for": "192.0.2.2"}
        reply = httpx.post(f"{url}/score_step", json=BODY, headers=headers, timeout=PATIENCE)
        assert reply.status_code == status


def hold_a_place(url: str, held: ExitStack, address: str) -> None:
    """Sends the head of a request whose body never comes; it holds a place until ``held`` ends."""
    parts = urlsplit(url)
    connection = held.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE))
    head = f"POST /score_step HTTP/1.1\r\nhost: service\r\nx-forwarded-for: {address}\r\ncontent-length: 1\r\n\r\n"
    connection.sendall(head.encode())


def running(url: str) -> int:
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("agentprm_requests_running "))))
