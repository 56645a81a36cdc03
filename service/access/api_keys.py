"""API keys, stored in a file as hashes, one per line.

    # name    scopes  hash                                                                     requests
    agents    score   sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8  600/min

``python -m service.access.api_keys NAME`` makes a key and prints it once, with its line for the file. A key is
256 random bits, which nobody can guess, so a plain hash protects it: it needs no salt and no slow hash.
"""

import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer

from agentprm.errors import AgentPRMError
from service.access.rate_limits import Rate, parse_rate

logger = logging.getLogger(__name__)

SCOPES: Final = ("score", "record", "admin")
"""Scopes of keys: ``admin`` changes what is served, ``record`` reports outcomes, ``score`` does all else but probes."""
DEFAULT_SCOPE: Final = "score"
RECHECK_SECONDS: Final = 1.0
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})")


class ApiKeysError(AgentPRMError):
    """A file of keys cannot be used. The message says which line, and never quotes it: it may hold a key."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    scopes: frozenset[str]
    digest: bytes
    rate: Rate | None = None
    """Most requests for scores or with outcomes; None: no limit but those of the service."""


class ApiKeys:
    """The keys of a file, read again when it changes. If the changed file cannot be read, the old keys stay in force.

    Raises:
        ApiKeysError: the file cannot be used when the service starts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_state = self._read_file_state()
        self._keys = read_keys(path)
        self._checked = monotonic()

    def find(self, token: str) -> ApiKey | None:
        """Returns the key with secret ``token``, or None. Compares with all keys: every token takes the same time."""
        self._reload_if_changed()
        digest = sha256(token.encode()).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _reload_if_changed(self) -> None:
        if monotonic() - self._checked < RECHECK_SECONDS:
            return
        self._checked = monotonic()
        if (state := self._read_file_state()) == self._file_state:
            return
        self._file_state = state
        try:
            self._keys = read_keys(self._path)
        except ApiKeysError as error:
            logger.error("the old API keys stay in force: %s", error)  # noqa: TRY400  (one sentence says it)
        else:
            logger.info("%d API keys are in force", len(self._keys))

    def _read_file_state(self) -> tuple[int, ...] | None:
        """Returns what changes when the file is written, replaced or made readable; None if it is not there."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def read_keys(path: Path) -> list[ApiKey]:
    """Reads the keys of a file.

    Raises:
        ApiKeysError: the file cannot be read, a line describes no key, a name comes twice, or there is no key.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows editors put a mark at the beginning
    except OSError as error:
        raise ApiKeysError(f"the API keys in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ApiKeysError(f"the API keys in {path} cannot be read: it is not UTF-8; save it as UTF-8") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not (text := line.partition("#")[0].strip()):
            continue
        key = _parse(text, f"{path}, line {number}")
        if key.name in keys:
            raise ApiKeysError(f"{path}, line {number}: the name {key.name} comes twice")
        keys[key.name] = key
    if not keys:
        raise ApiKeysError(f"{path} holds no API key; make one with python -m service.access.api_keys NAME")
    return list(keys.values())


def new_key(name: str, scopes: str = DEFAULT_SCOPE, rate: str = "") -> tuple[str, str]:
    """Returns a new key, and its line for the file."""
    token = f"agentprm_{secrets.token_urlsafe(32)}"
    return token, f"{name} {scopes} sha256:{sha256(token.encode()).hexdigest()} {rate}".rstrip()


def _parse(text: str, where: str) -> ApiKey:
    parts = text.split()
    if len(parts) not in (3, 4):
        raise ApiKeysError(f"{where}: a line is a name, scopes, a hash and perhaps a rate")
    name, scopes, digest = parts[:3]
    if not _NAME.fullmatch(name):
        raise ApiKeysError(f"{where}: a name is 1 to 64 letters, digits, '_', '.' and '-'")
    if unknown := set(scopes.split(",")) - set(SCOPES):
        raise ApiKeysError(f"{where}: {len(unknown)} unknown scopes; there are {', '.join(SCOPES)}")
    if not (found := _HASH.fullmatch(digest)):
        raise ApiKeysError(f"{where}: a hash is sha256: and 64 hex digits, and never the key itself")
    try:
        rate = parse_rate(parts[3]) if len(parts) == 4 else None
    except ValueError as error:
        raise ApiKeysError(f"{where}: {error}") from error
    return ApiKey(name, frozenset(scopes.split(",")), bytes.fromhex(found[1]), rate)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("a name is 1 to 64 letters, digits, '_', '.' and '-'")
    return name


def _checked_scopes(scopes: str) -> str:
    if set(scopes.split(",")) - set(SCOPES):
        raise typer.BadParameter(f"scopes are {', '.join(SCOPES)}")
    return scopes


def _checked_rate(rate: str) -> str:
    try:
        if rate:
            parse_rate(rate)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return rate


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def make_key(
    name: Annotated[
        str, typer.Argument(metavar="NAME", callback=_checked_name, help="Name of the key; appears in the log.")
    ],
    scopes: Annotated[
        str, typer.Option(callback=_checked_scopes, help="Comma-separated: score, record, admin.")
    ] = DEFAULT_SCOPE,
    rate: Annotated[
        str,
        typer.Option(
            callback=_checked_rate, help="Most requests for scores or with outcomes: 20/s, 600/min or 5000/h."
        ),
    ] = "",
) -> None:
    """Make an API key."""
    token, line = new_key(name, scopes, rate)
    print(f"the key, which is shown only now:  {token}\nits line for the file of keys:     {line}")


if __name__ == "__main__":
    app(prog_name="python -m service.access.api_keys")
