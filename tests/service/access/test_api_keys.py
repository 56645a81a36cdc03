"""Keys: hashed at rest, followed when the file changes, never quoted."""

import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import pytest
from typer.testing import CliRunner

from service.access import api_keys
from service.access.api_keys import ApiKeys, ApiKeysError, app, new_key, read_keys
from service.access.rate_limits import Rate

SECRET = "agentprm_this-is-the-key"
HASH = f"sha256:{sha256(SECRET.encode()).hexdigest()}"


def name_of(keys: ApiKeys, token: str) -> str | None:
    key = keys.find(token)
    return None if key is None else key.name


def file_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_new_key_is_known_by_its_line_and_only_its_hash_is_stored(tmp_path: Path) -> None:
    (token, line), (_, other) = new_key("agents"), new_key("trainer")
    path = file_of(tmp_path, f"# who may ask\n\n{line}  # the agents\n{other}\n")
    assert token not in path.read_text()
    assert name_of(ApiKeys(path), token) == "agents"


@pytest.mark.parametrize("token", ["", SECRET[:-1], f"{SECRET}x", SECRET.upper(), HASH, "ключ"])
def test_what_is_not_the_key_is_nobodys(token: str, tmp_path: Path) -> None:
    keys = ApiKeys(file_of(tmp_path, f"agents score {HASH}"))
    assert name_of(keys, SECRET) == "agents"
    assert name_of(keys, token) is None


def test_every_key_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append(left)
        return left == right

    lines = [f"k{number} score {HASH if number == 0 else 'sha256:' + f'{number:064x}'}" for number in range(3)]
    keys = ApiKeys(file_of(tmp_path, "\n".join(lines)))
    monkeypatch.setattr("hmac.compare_digest", compare)
    assert name_of(keys, SECRET) == "k0"
    assert len(compared) == 3, "a match does not end the search"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no API key"),
        ("# nobody", "holds no API key"),
        (f"agents {HASH}", "line 1: a line is a name, scopes, a hash and perhaps a rate"),
        (f"\nagents score {SECRET}", "line 2: a hash is sha256: and 64 hex digits, and never the key itself"),
        (f"agents score {HASH.upper()}", "line 1: a hash"),
        (f"agents score,fly {HASH}", "line 1: 1 unknown scopes; there are score, record, admin"),
        (f"a/b score {HASH}", "line 1: a name is"),
        (f"a score {HASH}\na score {HASH}", "line 2: the name a comes twice"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_that_quotes_no_key(
    text: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ApiKeysError) as refused:
        ApiKeys(file_of(tmp_path, text))
    assert complaint in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_file_may_come_from_a_windows_editor(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(f"\ufeff# who may ask\r\n\r\n \r\nagents score {HASH} # the agents\r\n".encode())
    assert name_of(ApiKeys(path), SECRET) == "agents"
    path.write_bytes(f"\ufeffagents score {HASH}".encode())
    assert name_of(ApiKeys(path), SECRET) == "agents"


def test_a_file_in_another_encoding_is_told_which_one_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"agents score {HASH}", encoding="utf-16")
    with pytest.raises(ApiKeysError, match="it is not UTF-8; save it as UTF-8"):
        ApiKeys(path)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ApiKeysError, match="cannot be read"):
        ApiKeys(tmp_path / "nothing")


def test_a_changed_file_is_followed_and_a_broken_one_leaves_the_old_keys_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_keys, "RECHECK_SECONDS", 0.0)
    path = file_of(tmp_path, f"agents score {HASH}")
    keys = ApiKeys(path)
    (token, line), (later, last) = new_key("ops"), new_key("later")

    def rewrite(text: str, tick: int) -> None:
        path.write_text(text)
        os.utime(path, ns=(tick, tick))

    rewrite(line, 1)
    assert (name_of(keys, token), name_of(keys, SECRET)) == ("ops", None)
    with caplog.at_level(logging.ERROR):
        rewrite("nonsense", 2)
        assert name_of(keys, token) == name_of(keys, token) == "ops"
        path.unlink()
        assert name_of(keys, token) == "ops"
    assert [record.message.partition(":")[0] for record in caplog.records] == ["the old API keys stay in force"] * 2
    rewrite(last, 3)
    assert (name_of(keys, later), name_of(keys, token)) == ("later", None)


def test_keys_that_become_readable_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the file changes then but its mode."""
    monkeypatch.setattr(api_keys, "RECHECK_SECONDS", 0.0)
    path = file_of(tmp_path, f"agents score {HASH}")
    keys = ApiKeys(path)
    token, line = new_key("ops")
    path.write_text(line)
    readable = api_keys.read_keys

    def unreadable(_: Path) -> NoReturn:
        raise ApiKeysError("the API keys cannot be read: PermissionError")

    monkeypatch.setattr(api_keys, "read_keys", unreadable)
    assert name_of(keys, SECRET) == "agents"
    monkeypatch.setattr(api_keys, "read_keys", readable)
    path.chmod(0o640)
    assert (name_of(keys, token), name_of(keys, SECRET)) == ("ops", None)


def test_the_command_prints_a_key_and_the_line_that_knows_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["agents", "--scopes", "score,admin", "--rate", "20/s"])
    assert (done.exit_code, done.stderr) == (0, "")
    token, line = [printed.partition(":  ")[2].strip() for printed in done.stdout.splitlines()]
    (key,) = read_keys(file_of(tmp_path, line))
    assert (key.name, key.scopes, key.rate) == ("agents", frozenset(("score", "admin")), Rate(20, 1.0))
    assert name_of(ApiKeys(tmp_path / "keys"), token) == "agents"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Missing argument 'NAME'"),
        (["two words"], "a name is 1 to 64 letters"),
        (["agents", "--scopes", "fly"], "scopes are score, record, admin"),
        (["agents", "--rate", "20/d"], "as in 600/min"),
    ],
)
def test_wrong_arguments_make_no_key(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr
