"""The first start of somebody who comes from uvicorn: options, its variables, IPv6, Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.processes import PATIENCE
from tests.end_to_end.conftest import ROOT, wait_until_ready

pytestmark = pytest.mark.timeout(300)  # it starts a server, which a busy machine does slowly


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_serves_on_the_address_of_its_options_and_says_what_it_ignores_and_what_it_knows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**os.environ, "WEB_CONCURRENCY": "auto", "UVICORN_PORT": "80", "AGENTPRM_PORT": "no port"}
    command = [sys.executable, "-m", "service", "--host", "::1", "--port", "0", "--model", "textcraft-demo"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stream)
    try:
        url = wait_until_ready(process, log)
        assert url.startswith("http://[::1]:")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)
    lines = log.read_text()
    assert "WEB_CONCURRENCY is ignored: " in lines
    assert "UVICORN_PORT is ignored: " in lines
    assert "textcraft-demo@1 was trained on TextCraft " in lines
    assert "an item has at most 512 tokens" in lines
    assert "Traceback" not in lines
