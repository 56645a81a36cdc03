"""Judges whose server fails, refuses or is missing: retries, clear errors, and no text of a prompt in them."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from agentprm.errors import InternalError
from model_store.errors import CheckpointError
from model_store.format.judge import Judge
from model_store.format.store import Checkpoint
from service.app import create_app
from service.generation.server import KeyUnreadable, read_key
from service.models.load import load_checkpoint
from service.settings import Settings
from tests.service.echo_app import PATIENCE, proposal
from tests.service.generation.conftest import CHAT, JUDGES, Server, judging, loaded_judge, score

AGAIN = {"retry-after": "0"}


def test_a_server_that_is_silent_for_too_long_has_failed(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, remote_timeout_ms=1000) as client, server.held(), asyncio.timeout(PATIENCE):
            failed = await score(client)
            assert failed.status_code == 502
            assert failed.json()["error"]["message"] == "the judge's server did not answer within 1 s"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "passes",
    [{"status": 429, "headers": AGAIN}, {"status": 503, "headers": AGAIN}, {"cut": 0}, {"cut": 20}],
    ids=["overloaded", "not ready", "cut before", "cut within"],
)
@JUDGES
def test_what_passes_is_tried_again(server: Server, judge: Judge, passes: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with judging(server, judge) as client:
            await server.answers_with(passes, passes)
            assert (await score(client)).status_code == 200
            assert (await server.happened())["asked"] == 1 + 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("scripted", "means"),
    [
        ({"status": 429, "headers": AGAIN}, (429, "is overloaded")),
        ({"status": 503, "headers": AGAIN}, (503, "is not ready")),
        ({"status": 503, "headers": {"retry-after": "600"}}, (503, "is not ready")),
        ({"status": 401}, (502, "HTTP 401: it wants another key")),
        ({"status": 404}, (502, "HTTP 404: it has no such model or route")),
        ({"status": 400, "body": {"error": "too long: PRIVATE"}}, (502, "HTTP 400")),
        ({"status": 422, "body": {"error": "PRIVATE", "error_type": "validation"}}, (502, "HTTP 422")),
        ({"status": 424, "body": {"error": "PRIVATE", "error_type": "generation"}}, (502, "HTTP 424")),
        ({"status": 500, "body": "PRIVATE"}, (502, "HTTP 500")),
        ({"reply": "PRIVATE"}, (502, "no reply of its kind")),
        ({"reply": '{"choices": [{"mess'}, (502, "no reply of its kind")),
        ({"reply": []}, (502, "no reply of its kind")),
        ({"reply": {"choices": []}}, (502, "no reply of its kind")),
        ({"reply": "[" * 100_000}, (502, "no reply of its kind")),
        ({"reply": "null"}, (502, "no reply of its kind")),
        ({"written": []}, (502, "no probabilities of tokens")),
        ({"written": [["Hm", {"Hm": 0.9, "So": 0.1}]]}, (502, "neither verdict is among the 2 likeliest")),
        ({"written": [["Hm", {"Hm": 0.99, "Yes": 0.004, "No": 0.004}]]}, (502, "neither verdict is among")),
        ({"written": [["Hm", {"Hm": 0.9, "Yes": 0.04}]]}, (502, "no likelier than others")),
    ],
)
@JUDGES
def test_what_does_not_pass_is_one_clear_sentence_without_text(
    server: Server, judge: Judge, scripted: dict[str, Any], means: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with judging(server, judge) as client:
            await server.answers_with(*[scripted] * 4)
            failed = await score(client, "PRIVATE")
            error = failed.json()["error"]
            assert (failed.status_code, means[1] in error["message"]) == (means[0], True), error
            assert ("retry-after" in failed.headers) == (means[0] in (429, 503))
            assert "PRIVATE" not in failed.text
            assert "\n" not in error["message"]
            await server.recovers()
            assert (await score(client, "PRIVATE")).status_code == 200

    asyncio.run(scenario())
    assert "PRIVATE" not in caplog.text


def test_a_server_that_tells_no_probabilities_or_odd_ones_is_told_so(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server) as client:
            reply = {"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]}
            odd = {"token": "Yes", "logprob": 1.5, "top_logprobs": []}
            lying = {"choices": [{**reply["choices"][0], "logprobs": {"content": [odd]}}]}
            await server.answers_with({"reply": reply}, {"reply": lying})
            assert "tells no probabilities" in (await score(client)).json()["error"]["message"]
            assert "no reply of its kind" in (await score(client)).json()["error"]["message"]

    asyncio.run(scenario())


def test_a_judge_whose_server_is_not_well_does_not_start(server: Server) -> None:
    async def scenario() -> None:
        await server.answers_with({"status": 404})
        with pytest.raises(InternalError, match="judge@1 failed its warm-up: the judge's server answered HTTP 404"):
            async with judging(server):
                raise AssertionError
        with pytest.raises(InternalError, match="failed its warm-up: the judge's server cannot be reached"):
            async with judging(Server("http://127.0.0.1:9")):
                raise AssertionError

    asyncio.run(scenario())


def test_a_judge_without_a_server_is_not_loaded() -> None:
    manifest = loaded_judge(CHAT).manifest
    with pytest.raises(CheckpointError, match=r"^judge@1 is a judge, and AGENTPRM_JUDGE_URL names no server$"):
        load_checkpoint(Checkpoint(Path(), manifest), Settings())


@pytest.mark.parametrize("content", [None, b"", b"two\nkeys", "k\u00e9y".encode(), b"\xff"])
def test_a_key_that_cannot_be_read_ends_the_start(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    for setting in ("judge_api_key_file", "policy_api_key_file"):
        settings: dict[str, Any] = {setting: file, "policy_url": "http://policy"}
        with pytest.raises(KeyUnreadable, match=str(file)):
            create_app([], Settings(**settings))


def test_a_key_may_come_from_a_windows_editor(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes("\ufeffsecret\r\n".encode())
    assert read_key(file) == "secret"
    file.write_text("secret", encoding="utf-16")
    with pytest.raises(KeyUnreadable, match="is not UTF-8; save it as UTF-8"):
        read_key(file)


def test_a_request_of_more_calls_than_may_wait_is_refused(server: Server) -> None:
    async def scenario() -> None:
        async with judging(server, remote_calls=1, max_remote_queue=2) as client:
            too_many = await client.post("/rank_actions", json={"items": [proposal("a", "b")]})
            assert (too_many.status_code, too_many.json()["error"]["details"]) == (413, {"calls": 3, "limit": 2})

    asyncio.run(scenario())
