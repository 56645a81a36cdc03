"""Checkpoints of the hub, at one commit."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from model_store.errors import CheckpointError, CheckpointNotFound
from model_store.importers.hub import find_source


class Hub(BaseHTTPRequestHandler):
    """Answers every request with one status, as the hub does for a repository that it does not show."""

    status: ClassVar[int] = 401
    reason: ClassVar[str] = ""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], str]]:
    """Returns a function that takes a status and a reason to answer with, and returns the hub's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answering(status: int, reason: str) -> str:
            monkeypatch.setattr(Hub, "status", status)
            monkeypatch.setattr(Hub, "reason", reason)
            return f"http://127.0.0.1:{server.server_port}"

        yield answering
        server.shutdown()


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("status", "reason", "error", "message"),
    [
        (403, "GatedRepo", CheckpointError, "is gated: accept its terms"),
        (404, "RepoNotFound", CheckpointNotFound, "the hub has no someone/model@"),
        (404, "RevisionNotFound", CheckpointNotFound, "the hub has no someone/model@"),
        (400, "", CheckpointError, "cannot be downloaded"),
    ],
)
def test_what_the_hub_does_not_give_is_one_sentence(
    hub: Callable[[int, str], str], status: int, reason: str, error: type[CheckpointError], message: str
) -> None:
    with pytest.raises(error, match=message) as refused:
        find_source(f"someone/model@{COMMIT}", endpoint=hub(status, reason))
    assert "\n" not in str(refused.value)


def test_a_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        find_source(f"someone/model@{COMMIT}", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("someone/model", "needs @ and a commit of 40 hex digits"),
        ("someone/model@main", "needs @ and a commit of 40 hex digits"),
        (f"someone/model@{COMMIT[:12]}", "needs @ and a commit of 40 hex digits"),
        ("/nowhere/at/all", "neither a directory nor owner/name@commit"),
        ("../up", "neither a directory nor owner/name@commit"),
    ],
)
def test_a_source_must_be_a_directory_or_one_commit(source: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_source(source)
