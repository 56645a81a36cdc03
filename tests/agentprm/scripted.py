"""A service that answers from a script, and one way to call both clients: AsyncClient goes through asyncio.run."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal

import httpx

from agentprm import AsyncClient, Client

MODEL = {"name": "textcraft-demo", "version": "1", "digest": "sha256:5f0c"}
CLIENT_OPTIONS = {"model", "overflow", "api_key", "max_retries"}
USAGE = {"tokens": 113, "computed": 12, "prefix_cache": 101, "score_cache": 0, "unknown": 0}
STEP = {"id": None, "promise": 0.71, "progress": 0.08, "raw": 0.9, "usage": USAGE}


def reply(*results: Mapping[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"model": MODEL, "results": results})


def refusal(status: int, code: str, retry_after: str | None = None) -> httpx.Response:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    envelope = {"error": {"code": code, "message": "why", "details": {"limit": 3}}}
    return httpx.Response(status, json=envelope, headers=headers)


def items_of(request: httpx.Request) -> list[dict[str, Any]]:
    """The items of a request as a caller knows them, without the ids that the client gives them."""
    return [
        {name: value for name, value in item.items() if name != "id"} for item in json.loads(request.content)["items"]
    ]


def with_ids(answer: httpx.Response, request: httpx.Request) -> bytes:
    """The answer with the ids of the request's items, where it has none of its own."""
    if not (answer.is_success and request.content and answer.content.startswith(b"{")):
        return answer.content
    body = answer.json()
    for result, item in zip(body["results"], json.loads(request.content)["items"], strict=False):
        result["id"] = result["id"] or item["id"]
    return json.dumps(body).encode()


class ScriptedService:
    """Gives the ``answers`` in order; time passes only while a client sleeps or an answer is late."""

    def __init__(self, kind: Literal["sync", "async"]) -> None:
        self.kind = kind
        self.answers: list[httpx.Response | Exception] = []
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []
        self.now = 1000.0
        self.seconds_per_answer = 0.0
        self.echo_ids = True

    def call(self, method: str, *args: Any, base_url: str = "http://prm:8000", **options: Any) -> Any:
        """Calls one method of a new client; options of the constructor are passed to it."""
        of_client = {name: options.pop(name) for name in CLIENT_OPTIONS & options.keys()}
        if self.kind == "sync":
            return self._call_sync(base_url, of_client, method, *args, **options)
        return asyncio.run(self._call_async(base_url, of_client, method, *args, **options))

    def call_closed(self, method: str, *args: Any) -> Any:
        """Calls one method of a client that was closed twice."""
        transport = httpx.MockTransport(self._answer)
        if self.kind == "sync":
            client = Client("http://prm:8000", transport=transport)
            client.close()
            client.close()
            return getattr(client, method)(*args)

        async def call() -> Any:
            client = AsyncClient("http://prm:8000", transport=transport)
            await client.close()
            await client.close()
            return await getattr(client, method)(*args)

        return asyncio.run(call())

    def _call_sync(self, base_url: str, of_client: dict[str, Any], method: str, *args: Any, **options: Any) -> Any:
        transport = httpx.MockTransport(self._answer)
        with Client(base_url, transport=transport, sleep=self._sleep, **of_client) as client:
            return getattr(client, method)(*args, **options)

    async def _call_async(
        self, base_url: str, of_client: dict[str, Any], method: str, *args: Any, **options: Any
    ) -> Any:
        async def sleep(seconds: float) -> None:
            self._sleep(seconds)

        transport = httpx.MockTransport(self._answer)
        async with AsyncClient(base_url, transport=transport, sleep=sleep, **of_client) as client:
            return await getattr(client, method)(*args, **options)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.now += self.seconds_per_answer
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        content = with_ids(answer, request) if self.echo_ids else answer.content
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
