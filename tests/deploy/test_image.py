"""The Dockerfile is linted and consistent with the code that it packs."""

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.files import PINNED, ROOT, SETTINGS, VERSION
from tests.import_table import INTERNAL

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
TOOLS = Path(sys.executable).parent


def test_the_dockerfile_passes_the_linter() -> None:
    subprocess.run([TOOLS / "hadolint", ROOT / "docker" / "Dockerfile"], check=True, timeout=100)


@pytest.mark.parametrize("script", ["deploy/compose/test.sh", ".ci/run"])
def test_a_shell_script_passes_the_linter(script: str) -> None:
    subprocess.run([TOOLS / "shellcheck", ROOT / script], check=True, timeout=100)


def test_every_variable_that_the_image_sets_is_a_setting() -> None:
    set_here = set(re.findall(r"\bAGENTPRM_[A-Z_]+(?==)", DOCKERFILE))
    assert set_here
    assert set_here <= SETTINGS


def test_the_base_image_is_pinned() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert PINNED.fullmatch(image)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) <= {
        "${PYTHON_IMAGE}", "base", "build"
    }  # fmt: skip


def test_the_labels_tell_this_version() -> None:
    assert f'org.opencontainers.image.version="{VERSION}"' in DOCKERFILE
    assert re.findall(r"agentprm:(\S+?)-", DOCKERFILE) == [VERSION, VERSION]


def test_every_file_that_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    copied = {
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    }
    sent = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)


def test_every_package_that_the_service_imports_is_in_the_image() -> None:
    imported = {name for module, names in INTERNAL.items() if module.startswith("service") for name in names}
    for package in {name.partition(".")[0] for name in imported}:
        assert f"\nCOPY {package} {package}\n" in DOCKERFILE


@contextmanager
def answering(status: int, certificate: Path | None = None) -> Iterator[dict[str, str]]:
    """Runs a server whose ``/ready`` has this status; yields the settings that name it."""

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        settings = {"AGENTPRM_PORT": str(server.server_address[1])}
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            settings["AGENTPRM_TLS_CERTFILE"] = str(certificate)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield settings
        finally:
            server.shutdown()
            thread.join(100)
            assert not thread.is_alive(), "a request is still answered"


def health_check(settings: dict[str, str]) -> int:
    (script,) = re.findall(r'^HEALTHCHECK .* CMD \["python", "/app/(.+)"\]$', DOCKERFILE, re.MULTILINE)
    command = [sys.executable, str(ROOT / script)]
    done = subprocess.run(command, env=os.environ | settings, stderr=subprocess.DEVNULL, check=False, timeout=100)
    return done.returncode


def test_the_health_check_passes_only_while_the_service_is_ready() -> None:
    with answering(200) as ready:
        assert health_check(ready) == 0
    with answering(503) as unready:
        assert health_check(unready) != 0
    assert health_check(unready) != 0  # and now nobody listens


def test_the_health_check_asks_over_tls_where_the_service_speaks_it(tmp_path: Path) -> None:
    certificate = tmp_path / "pair.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=agentprm.example.com", "-keyout", "-", "-out", "-"]
    with certificate.open("wb") as file:
        command = ["openssl", "req", "-x509", *made]
        subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True, timeout=100)
    with answering(200, certificate) as ready:
        assert health_check(ready) == 0
    with answering(503, certificate) as unready:
        assert health_check(unready) != 0
