"""Errors of counting and purging are one line, which quotes no password."""

from pathlib import Path

import pytest

from tests.service.score_cache_command.commands import (
    DEMO,
    PASSWORD,
    Server,
    command,
    complaint,
    fill,
    number_of_keys,
)
from tests.service.score_cache_command.conftest import running


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "there is no Redis: set AGENTPRM_REDIS_URL or give --url"),
        ({"redis_url": f"redis://:{PASSWORD}@127.0.0.1:1"}, "Redis cannot be reached"),
        ({"redis_url": f"redis+cluster://:{PASSWORD}@127.0.0.1:1"}, "Redis cannot be reached"),
        ({"redis_url": f"redis+sentinel://:{PASSWORD}@127.0.0.1:1/scores"}, "Redis cannot be reached"),
        ({"redis_url": f"http://:{PASSWORD}@127.0.0.1:1"}, "the Redis URL must begin with redis://"),
        ({"redis_url": f"redis://:{PASSWORD}/more@127.0.0.1:1"}, "the Redis URL cannot be"),
        ({"redis_url": f"redis://:{PASSWORD}@127.0.0.1:1", "prot": "1"}, "AGENTPRM_PROT is not a setting"),
        ({"score_cache_namespace": "all*"}, "AGENTPRM_SCORE_CACHE_NAMESPACE is 'all*'"),
    ],
)
def test_what_keeps_redis_from_being_asked_is_one_sentence(settings: dict[str, str], said: str) -> None:
    assert said in complaint("purge", "--all", **settings)


def test_a_wrong_password_is_one_sentence(server: Server) -> None:
    port = server.client.get_connection_kwargs()["port"]
    for login in (f":{PASSWORD}r@", f"nobody:{PASSWORD}@", ""):
        assert "Redis refuses" in complaint("inspect", redis_url=f"redis://{login}127.0.0.1:{port}")


def test_a_server_that_repeats_the_password_is_not_quoted(tmp_path: Path) -> None:
    """Some servers refuse a login with ``unknown command 'AUTH', with args beginning with: 'correct-horse'``."""
    with running(tmp_path, "--save", "", "--rename-command", "AUTH", "") as port:
        assert "a Redis command failed" in complaint("inspect", redis_url=f"redis://:{PASSWORD}@127.0.0.1:{port}")


@pytest.mark.parametrize(
    "given", ["nobody", "demo@2", "0123456789abcde", "0123456789abcdefg", "sha256:0123", "../demo", ""]
)
def test_an_unknown_checkpoint_is_one_sentence_and_purges_nothing(server: Server, namespace: str, given: str) -> None:
    fill(server.client, namespace, DEMO.digest, 2)
    said = complaint("purge", "--checkpoint", given, "--namespace", namespace, redis_url=server.url)
    assert repr(given) in said
    assert number_of_keys(server.client, namespace) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("purge",),
        ("purge", "--all", "--checkpoint", "demo"),
        ("purge", "--all", "--namespace", "*"),
        ("inspect", f"redis://:{PASSWORD}@host"),
        (f"redis://:{PASSWORD}@host",),
    ],
)
def test_wrong_arguments_are_a_matter_of_usage(server: Server, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, redis_url=server.url)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: python -m service.score_cache")
    assert PASSWORD not in done.err
