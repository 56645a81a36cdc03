import socket
import sys
from pathlib import Path

import pytest

from service.command_line import main
from service.listening import CannotListen, bind_socket, start_listening


@pytest.fixture(autouse=True)
def _free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_PORT", "0")
    monkeypatch.setattr("service.command_line.set_up_logging", lambda *_: None)  # leaves the log of the tests alone


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line that a failed start prints."""
    assert main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_wrong_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AGENTPRM_PRT", "80")
    assert "AGENTPRM_PRT is not a setting" in complaint(capsys)


def test_a_missing_checkpoint_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENTPRM_MODEL_STORE", str(tmp_path))
    monkeypatch.setenv("AGENTPRM_MODELS", "nobody")
    assert "nobody" in complaint(capsys)


def test_a_corrupt_checkpoint_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "broken" / "1" / "prm.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{")
    monkeypatch.setenv("AGENTPRM_MODEL_STORE", str(tmp_path))
    monkeypatch.setenv("AGENTPRM_MODELS", "broken")
    assert "prm.json" in complaint(capsys)


def test_quantised_weights_without_their_package_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTPRM_WEIGHTS", "int8")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    assert "pip install 'agentprm[quant]' brings it" in complaint(capsys)


def test_a_port_in_use_stops_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("AGENTPRM_PORT", str(port))
        assert f"cannot listen on 127.0.0.1:{port}" in complaint(capsys)


def test_guarded_metrics_without_keys_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTPRM_GUARD_METRICS", "true")
    assert "AGENTPRM_GUARD_METRICS is of no use without AGENTPRM_API_KEYS_FILE" in complaint(capsys)


def test_of_two_that_load_at_the_same_time_one_is_told_that_the_port_is_taken() -> None:
    with bind_socket("127.0.0.1", 0) as first, bind_socket(*first.getsockname()) as second:
        start_listening(second)
        with pytest.raises(CannotListen, match=r"cannot listen on 127.0.0.1"):
            start_listening(first)


def test_a_taken_port_refuses_clients_until_the_server_listens() -> None:
    with bind_socket("127.0.0.1", 0) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())
