"""A server on this machine with the part of the hub's file API that downloads use.

Weights answer with a redirect to another host, as large files of the hub do.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".pth")


@dataclass
class FakeHub:
    """Repositories by name, with the files of their one commit; ``downloaded`` lists the files that were sent."""

    commit: str = "0123456789abcdef0123456789abcdef01234567"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    downloaded: list[str] = field(default_factory=list)
    url: str = ""
    other_url: str = ""

    def add(self, repository: str, directory: Path, folder: str = "") -> str:
        """Puts the files of a directory into a repository; returns the source to import."""
        files = self.repositories.setdefault(repository, {})
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                files[f"{folder}{file.relative_to(directory).as_posix()}"] = file.read_bytes()
        return f"{repository}@{self.commit}"

    def names(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.downloaded}


class _Requests(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/large/"):
            self._large(path.removeprefix("/large/"))
            return
        owner, name, kind, rest = path.removeprefix("/api/models/").strip("/").split("/", 3)
        repository = f"{owner}/{name}"
        if repository in self.hub.gated:
            self._refuse(403, "GatedRepo")
        elif repository not in self.hub.repositories:
            self._refuse(404, "RepoNotFound")
        elif kind == "revision" and rest in self.hub.refs:
            self._json({"id": repository, "sha": self.hub.refs[rest]})
        elif not rest.startswith(self.hub.commit):
            self._refuse(404, "RevisionNotFound")
        elif kind == "tree":
            self._json([_entry(file, data) for file, data in self.hub.repositories[repository].items()])
        else:
            self._file(repository, rest.removeprefix(f"{self.hub.commit}/"))

    do_HEAD = do_GET

    def _file(self, repository: str, file: str) -> None:
        data = self.hub.repositories[repository].get(file)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}  # noqa: S324
        if not file.endswith(LARGE):
            self._send(200, headers, data, f"{repository}/{file}")
            return
        linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        location = f"{self.hub.other_url}/large/{repository}/{file}"
        self._send(302, headers | linked | {"Location": location}, b"", "")

    def _large(self, path: str) -> None:
        owner, name, file = path.split("/", 2)
        data = self.hub.repositories[f"{owner}/{name}"][file]
        self._send(200, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, data, path)

    def _json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode(), "")

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, {"X-Error-Code": reason}, b"", "")

    def _send(self, status: int, headers: dict[str, str], body: bytes, downloaded: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            if downloaded:
                self.hub.downloaded.append(downloaded)

    def log_message(self, *_: object) -> None:
        pass


def _entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": hashlib.sha1(data).hexdigest(),  # noqa: S324  (as git names content)
    }
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


@contextmanager
def serving() -> Iterator[FakeHub]:
    hub = FakeHub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Requests", (_Requests,), {"hub": hub})) as server:
        hub.url, hub.other_url = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield hub
        server.shutdown()
