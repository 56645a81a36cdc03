"""What is recorded takes part in the limits: bodies count as they are decoded, and outcomes against a key's rate."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentprm.errors import Overloaded
from service.access.api_keys import new_key
from service.models.catalog import Models
from service.recording import recorder
from tests.service.echo_app import item, metric, serving

BODY = json.dumps({"items": [item("t" * 300, trajectory_id="a")]}).encode()
LIMIT = 250
"""Less than the body; more than it is when compressed."""


async def in_pieces() -> AsyncIterator[bytes]:
    yield BODY[:100]
    yield BODY[100:]


@pytest.mark.parametrize("encoding", ["gzip", "chunked"])
def test_a_body_counts_as_long_as_it_is_decoded(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "WAITING_BYTES", LIMIT)
    assert len(gzip.compress(BODY)) < LIMIT < len(BODY)
    headers = {"content-type": "application/json"}

    async def scenario() -> None:
        async with serving(record=tmp_path / "recorded") as client:
            if encoding == "gzip":
                packed = {**headers, "content-encoding": "gzip"}
                reply = await client.post("/score_step", content=gzip.compress(BODY), headers=packed)
            else:
                reply = await client.post("/score_step", content=in_pieces(), headers=headers)
            assert reply.status_code == 200
            assert await metric(client, "agentprm_recordings_dropped_total") == 1

    asyncio.run(scenario())


def test_outcomes_count_against_a_keys_rate_and_need_no_room_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Overloaded("the queue is full")

    async def unread() -> AsyncIterator[bytes]:
        yield b"{"
        raise AssertionError("the body was read")

    async def scenario() -> None:
        async with serving(api_keys_file=tmp_path / "keys", record=tmp_path / "recorded") as client:
            taken = await client.post("/outcomes", json={"trajectory_id": "a", "outcome": 1.0}, headers=mine)
            assert taken.status_code == 200
            refused = await client.post("/outcomes", content=unread(), headers=mine)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")

    key, line = new_key("reporter", "record", rate="1/h")
    (tmp_path / "keys").write_text(f"{line}\n")
    mine = {"authorization": f"Bearer {key}"}
    monkeypatch.setattr(Models, "refuse_if_full", full)
    asyncio.run(scenario())
