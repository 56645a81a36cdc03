"""The same limits hold over TLS, and while a handshake hangs."""

import ssl
import subprocess
from pathlib import Path

import pytest

from testbed.processes import HOST, PATIENCE, wait_until
from tests.service.http.server.serving import connect, exchange, read_reply, read_to_end, request, serving, status


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for this host and its key."""
    directory = tmp_path_factory.mktemp("tls")
    key, both = directory / "key.pem", directory / "both.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *curve, *name, "-keyout", str(key), "-out", str(both)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    both.write_bytes(both.read_bytes() + key.read_bytes())
    return both


def test_a_handshake_that_hangs_is_ended_and_counts_as_a_connection_until_then(certificate: Path) -> None:
    with serving(certificate=certificate, handshake_seconds=0.3, connections=1, refused_seconds=0.05) as server:
        with connect(server.address) as silent:
            server.wait_until_open(1)
            assert exchange(server.address) == b""
            assert server.reason() == "connections"
            assert silent.recv(1) == b""
        server.wait_until_open(0)
        with connect(server.address, certificate) as connection:
            connection.sendall(request("/"))
            assert status(read_reply(connection)) == 200


def test_headers_and_idle_connections_have_their_time(certificate: Path) -> None:
    with serving(certificate=certificate, header_seconds=0.05, keep_alive_seconds=0.05, unread_seconds=0.05) as server:
        with connect(server.address, certificate) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert status(read_to_end(connection)) == 408
        with connect(server.address, certificate) as connection:
            assert connection.recv(1) == b""


def test_an_early_reply_reaches_a_caller_who_sends_first(certificate: Path) -> None:
    with serving(certificate=certificate) as server, connect(server.address, certificate) as connection:
        connection.sendall(request("/early", b"x" * (16 << 20), close=True))
        assert status(read_to_end(connection)) == 200


def test_a_caller_who_takes_no_reply_is_cut_off(certificate: Path) -> None:
    with serving(certificate=certificate, write_seconds=0.05) as server:
        with connect(server.address, certificate, received=4096) as connection:
            connection.sendall(request("/large"))
            assert server.reason() == "write_time"
        server.wait_until_open(0)


def test_a_handshake_that_is_under_way_at_the_end_still_gets_a_reply(certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        serving(certificate=certificate, refused_seconds=PATIENCE, last_request_seconds=PATIENCE) as server,
        connect(server.address) as connection,
    ):
        server.wait_until_open(1)
        server.stop()
        wait_until(lambda: server.listening.fileno() == -1, "the server still listens")
        with context.wrap_socket(connection, server_hostname=HOST) as wrapped:
            wrapped.sendall(request("/"))
            assert status(read_to_end(wrapped)) == 200
