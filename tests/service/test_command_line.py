"""``python -m service``: its options, and one plain sentence for each thing that newcomers try."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.command_line import main
from service.settings import OPTIONS, Settings, ignored_variables, variable
from testbed.processes import PATIENCE, ROOT

Serve = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the log of the tests alone."""
    monkeypatch.setattr("service.command_line.set_up_logging", lambda *_: None)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Returns a function that types a command line and returns the settings that would be served with."""
    served: list[Settings] = []

    def keep(settings: Settings, _listener: object) -> int:
        served.append(settings)
        return 0

    monkeypatch.setitem(sys.modules, "service.serving", SimpleNamespace(serve=keep))
    monkeypatch.setenv("AGENTPRM_PORT", "0")

    def type_in(*arguments: str) -> Settings:
        assert main(arguments) == 0
        return served.pop()

    return type_in


def test_an_option_wins_over_its_variable_and_the_others_stay(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_PORT", "no port at all")
    monkeypatch.setenv("AGENTPRM_HOST", "127.0.0.2")
    settings = serve("--port", "0", "--model", "demo")
    assert (settings.host, settings.port, settings.models) == ("127.0.0.2", 0, ("demo",))
    assert settings.model_fields_set == {"host", "port", "models"}


def test_a_model_may_be_repeated(serve: Serve) -> None:
    names = ("demo", "textcraft-demo-orm", "textcraft-demo@1")
    assert serve("--model", names[0], "--model", f"{names[1]},{names[2]},").models == names


def test_an_address_may_have_the_brackets_of_a_url(serve: Serve) -> None:
    assert serve("--host", "[::1]").host == "::1"


def test_the_help_shows_the_variable_of_each_option_and_where_all_settings_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flag in ("--help", "-h"):
        assert main([flag]) == 0
        shown = capsys.readouterr().out
        assert "docs/settings.md" in shown
        for field, option in OPTIONS.items():
            assert option in shown
            assert variable(field) in shown


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("agentprm ")


@pytest.mark.parametrize("option", ["--help", "--version", "--reload"])
def test_what_needs_no_model_imports_no_torch(option: str) -> None:
    """It would take seconds."""
    script = (
        "import sys; from service.command_line import main; main(sys.argv[1:]); "
        "sys.exit(bool({'torch', 'transformers', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, option], cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("help", "python -m service takes options only; the settings are environment variables"),
        ("demo", "python -m service takes options only; the settings are environment variables"),
        ("--reload", "--reload is no option"),
        ("--hots=::1", "--hots is no option; the nearest is --host"),
        ("--models demo", "--models is no option; AGENTPRM_MODELS is the variable of that setting"),
        ("--device cuda:0", "--device is no option; AGENTPRM_DEVICE is the variable of that setting"),
        (
            "--redis-url=redis://:hunter2@x",
            "--redis-url is no option; AGENTPRM_REDIS_URL is the variable of that setting",
        ),
        ("redis://:hunter2@x", "python -m service takes options only; the settings are environment variables"),
        ("--port", "Option '--port' requires an argument."),
    ],
)
def test_what_is_no_option_ends_in_a_sentence(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == f"Error: {said}"
    assert "hunter2" not in printed.err


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the one line that a failed start prints."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_wrong_value_names_the_option_or_the_variable_that_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complaint(capsys, "--port", "99999").startswith("agentprm: --port is '99999' but should be less than")
    monkeypatch.setenv("AGENTPRM_PORT", "99999")
    assert complaint(capsys).startswith("agentprm: AGENTPRM_PORT is '99999' but should be less than")


@pytest.mark.usefixtures("serve")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HOST", "", "AGENTPRM_HOST is '' but should have at least 1 character"),
        ("HOST", "no.such.host.invalid", "cannot listen on no.such.host.invalid:0: "),
        ("HOST", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 70, ":0: that is no name of a host"),
        ("HOST", "192.0.2.1", "Cannot assign requested address; 127.0.0.1 is for this machine alone, 0.0.0.0"),
        ("HOST", "2001:db8::1", "cannot listen on [2001:db8::1]:0: "),
        ("MODELS", "textcraft-dmeo,", "no checkpoint 'textcraft-dmeo' in "),
        ("MODELS", "textcraft-dmeo,", "; the nearest is 'textcraft-demo'; there are: textcraft-demo-orm@1"),
        ("MODELS", "Demo", "; the nearest is 'demo'; "),
        ("MODEL_STORE", "some/where", "no checkpoint 'demo': there is no directory /"),
        ("MODEL_STORE", "x" * 5000, ": File name too long"),
        ("API_KEYS_FILE", "/no/such/file", "the API keys in /no/such/file cannot be read: No such file or directory"),
        ("API_KEYS_FILE", "/", "the API keys in / cannot be read: Is a directory"),
        ("JUDGE_API_KEY_FILE", "/no/such/file", "the key in /no/such/file cannot be read: No such file or directory"),
        ("POLICY_API_KEY_FILE", "/no/such/file", "the key in /no/such/file cannot be read: No such file or directory"),
        ("REDIS_URL", "redis://:12#x@host", "the Redis URL cannot be read: its password has to be percent-encoded"),
    ],
)
def test_what_newcomers_set_first_ends_in_a_sentence_before_a_model_is_loaded(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"AGENTPRM_{name}", value)
    line = complaint(capsys)
    assert line.startswith("agentprm: ")
    assert said in line


@pytest.mark.parametrize(
    "variables",
    [
        {"AGENTPRM_PORT": "tcp://10.0.0.7:8000"},
        {"AGENTPRM_SERVICE_HOST": "10.0.0.7", "AGENTPRM_SERVICE_PORT": "8000"},
        {"AGENTPRM_PORT_8000_TCP": "tcp://10.0.0.7:8000", "AGENTPRM_PORT_8000_TCP_PROTO": "tcp"},
        {"AGENTPRM_CACHE_SERVICE_HOST": "10.0.0.8"},
    ],
)
def test_variables_of_service_links_are_told_from_settings(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "Kubernetes makes of a Service; set enableServiceLinks: false in the pod" in complaint(capsys)


def test_variables_of_uvicorn_that_do_nothing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "UVICORN_PORT", "UVICORN_RELOAD", "FORWARDED_ALLOW_IPS"):
        monkeypatch.setenv(name, "4")
    assert ignored_variables() == [
        "UVICORN_PORT is ignored: AGENTPRM_PORT is the variable of that setting",
        "UVICORN_RELOAD is ignored: it is a variable of uvicorn's own command line",
        "WEB_CONCURRENCY is ignored: one process serves, and AGENTPRM_DEVICE gives a model several workers",
    ]
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    assert len(ignored_variables()) == 2


@pytest.mark.usefixtures("serve")
def test_a_file_that_may_not_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def deny(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    keys = tmp_path / "keys"
    keys.touch()
    monkeypatch.setenv("AGENTPRM_API_KEYS_FILE", str(keys))
    monkeypatch.setattr(Path, "read_text", deny)
    assert complaint(capsys) == f"agentprm: the API keys in {keys} cannot be read: Permission denied"
