"""The service over TLS, with a certificate that the test makes with openssl."""

import multiprocessing
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from agentprm import Client
from service.listening import CannotListen, check_certificate
from service.settings import Settings
from tests.end_to_end.conftest import started

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of httpx, when it refuses a certificate


class Pair(NamedTuple):
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("tls")
    made = Pair(directory / "cert.pem", directory / "key.pem")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "1",
            ),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(made.key), "-out", str(made.certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return made


def test_a_client_that_trusts_the_certificate_is_answered_and_one_that_does_not_sends_nothing(
    pair: Pair, tmp_path: Path
) -> None:
    trusting = ssl.create_default_context(cafile=str(pair.certificate))
    settings = {"tls_certfile": str(pair.certificate), "tls_keyfile": str(pair.key)}
    with started(tmp_path, trusting, **settings) as (_, url):
        assert url.startswith("https://")
        assert httpx.get(f"{url}/ready", verify=trusting, timeout=100).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{url}/ready", timeout=100)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_end_the_tls_connection_of_its_parent(pair: Pair, tmp_path: Path) -> None:
    """A child that closed it properly would send the end of the TLS session on the parent's socket."""
    trusting = ssl.create_default_context(cafile=str(pair.certificate))
    settings = {"tls_certfile": str(pair.certificate), "tls_keyfile": str(pair.key)}
    fork = multiprocessing.get_context("fork")
    with (
        started(tmp_path, trusting, **settings) as (_, url),
        Client(url, max_retries=0, transport=lambda: httpx.HTTPTransport(verify=trusting)) as client,
    ):

        def connection() -> object:
            client.models()
            (idle,) = client._connections._pool._idle
            return idle._socket

        def child() -> None:
            sender.send(connection())
            client.close()

        receiver, sender = fork.Pipe(duplex=False)
        mine = connection()
        process = fork.Process(target=child)
        process.start()
        assert receiver.poll(100)
        assert receiver.recv() != mine
        process.join(100)
        assert process.exitcode == 0
        assert connection() == mine


def test_what_cannot_be_used_is_known_before_a_model_is_loaded(pair: Pair, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "pkey", "-in", str(pair.key), "-aes128", "-passout", "pass:secret", "-out", str(encrypted)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    wrong: list[dict[str, Path]] = [
        {"tls_keyfile": pair.key},
        {"tls_certfile": tmp_path / "missing.pem"},
        {"tls_certfile": garbage, "tls_keyfile": pair.key},
        {"tls_certfile": pair.certificate},
        {"tls_certfile": pair.certificate, "tls_keyfile": encrypted},
    ]
    for settings in wrong:
        with pytest.raises(CannotListen):
            check_certificate(Settings.model_validate(settings))
    check_certificate(Settings(tls_certfile=pair.certificate, tls_keyfile=pair.key))
