"""Proxies of the environment: an error on the way names the proxy, and never its password."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from agentprm import AgentPRMError, AsyncClient, Client, ConnectionFailed, Step, Trajectory, UnexpectedReply
from tests.agentprm.echo_service import echo_service, raw_score

TRAJECTORY = Trajectory("t", (Step("", "x"),))
CREDENTIALS = "me:hunter2@"

Score = Callable[[str], Any]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=["sync", "async"])
def score(request: pytest.FixtureRequest) -> Score:
    def sync(url: str) -> Any:
        with Client(url, max_retries=0) as client:
            return client.score(TRAJECTORY)

    async def asynchronous(url: str) -> Any:
        async with AsyncClient(url, max_retries=0) as client:
            return await client.score(TRAJECTORY)

    return sync if request.param == "sync" else lambda url: asyncio.run(asynchronous(url))


class Refusing(BaseHTTPRequestHandler):
    """A proxy that wants other credentials."""

    def do_POST(self) -> None:
        self.send_response(407)
        self.send_header("content-length", "0")
        self.end_headers()

    do_CONNECT = do_POST

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """Host and port of a proxy that refuses everything."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """Host and port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def failure(kind: type[AgentPRMError], score: Score, url: str) -> str:
    with pytest.raises(kind) as caught:
        score(url)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_reached_is_named(
    score: Score, nobody: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://{CREDENTIALS}{nobody}")
    message = failure(ConnectionFailed, score, "http://prm.example:8000")
    assert message.startswith(
        f"POST http://prm.example:8000/score_step through the proxy http://{nobody}: ConnectError"
    )


def test_a_proxy_without_a_scheme_is_named(score: Score, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", nobody)
    assert f"through the proxy http://{nobody}: " in failure(ConnectionFailed, score, "http://prm.example:8000")


def test_a_proxy_that_refuses_is_named(score: Score, refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{CREDENTIALS}{refusing}")
    message = failure(UnexpectedReply, score, "http://prm.example:8000")
    assert f"through the proxy http://{refusing} got no AgentPRM reply: HTTP 407" in message


def test_a_proxy_that_opens_no_tunnel_is_named(score: Score, refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{CREDENTIALS}{refusing}")
    message = failure(ConnectionFailed, score, "https://prm.example")
    assert message.startswith(
        f"POST https://prm.example/score_step through the proxy http://{refusing}: ProxyError 407"
    )


def test_without_a_proxy_none_is_named(score: Score, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")  # of the other scheme
    assert "proxy" not in failure(ConnectionFailed, score, f"http://{nobody}")


@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "other.example, 127.0.0.1"])
def test_hosts_of_no_proxy_are_reached_directly(
    score: Score, nobody: str, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{nobody}")
    monkeypatch.setenv("NO_PROXY", hosts)
    with echo_service() as url:
        assert score(url).raw == raw_score("x")


@pytest.mark.parametrize(
    ("hosts", "url"),
    [("::1", "http://[::1]:9"), ("example.org", "http://prm.example.org"), ("localhost:9", "http://localhost:9")],
)
def test_no_proxy_holds_addresses_domains_and_ports(
    score: Score, monkeypatch: pytest.MonkeyPatch, hosts: str, url: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("NO_PROXY", hosts)
    with Client(url) as client:
        assert client._policy.proxy == ""
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    with Client(url) as client:
        assert client._policy.proxy == "http://proxy.example"


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("proxy", ["ftp://me:hunter2@proxy", "http://[me:hunter2@", "http://me:hunter2@proxy:port"])
def test_a_proxy_that_cannot_be_used_is_refused_at_once(
    client: Callable[[str], Any], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(ValueError, match="the proxy of the environment") as caught:
        client("http://prm")
    assert "hunter2" not in str(caught.value)
