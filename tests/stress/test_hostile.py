"""Every hostile body is refused in a few words, and the next request is scored."""

import asyncio

from agentprm import wire
from tests.service.echo_app import item, serving
from tests.stress.hostile import FILLS, filled, long_values, unknown_fields, wrong_items

LONGEST_ERROR = 20_000  # bytes
LONGEST_ITEM_ERROR = 1_000


def test_hostile_bodies_are_refused_in_a_few_words() -> None:
    async def scenario() -> None:
        async with serving() as client:
            for body in (*map(filled, FILLS), *unknown_fields(), *long_values()):
                headers = {"content-type": "application/json"}
                reply = await client.post(body.path, content=body.content, headers=headers)
                code = wire.ErrorReply.model_validate_json(reply.content).error.code
                assert (reply.status_code, code) in {(413, "too_long"), (422, "invalid")}, body.kind
                assert len(reply.content) < LONGEST_ERROR, body.kind
            for body in wrong_items():
                reply = await client.post(body.path, content=body.content, headers={"content-type": "application/json"})
                results = wire.ScoreStepOutcomes.model_validate_json(reply.content).results
                assert all(isinstance(result, wire.ItemError) for result in results), body.kind
                assert len(results) == 64
                assert len(reply.content) < 64 * LONGEST_ITEM_ERROR, body.kind
            assert (await client.post("/score_step", json={"items": [item()]})).status_code == 200

    asyncio.run(scenario())
