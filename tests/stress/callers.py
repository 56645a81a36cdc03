"""Many concurrent callers, who send the requests of a mixture and check the answers."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, takewhile
from typing import Any, Final

from agentprm.errors import BY_CODE
from testbed.processes import HOST
from tests.stress.connection import Answer, Connection, IllFormed
from tests.stress.expected import Oracle, WrongAnswer
from tests.stress.mixture import SCORED, HangUp, Mixture, Planned

CALLERS: Final = 32
PATIENCE: Final = 90.0
"""Seconds in which every request must be answered."""


class Callers:
    """Callers of a run. ``answers`` counts by kind of request and code; ``violations`` counts wrong answers.

    ``served`` are the digests that may answer a request without a version; a swap of models updates it.
    """

    def __init__(self, port: int, oracle: Oracle, mixture: Mixture, digests: Mapping[str, str]) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self.violations: Counter[str] = Counter()
        self.served: frozenset[str] = frozenset()
        self._port = port
        self._oracle = oracle
        self._mixture = mixture
        self._digests = digests
        self._sent = 0
        self._marks: dict[int, asyncio.Event] = {}

    async def send(self, more: Callable[[int], bool]) -> None:
        """Sends requests while ``more(number of those sent)``; returns when each is answered, hung up or given up."""
        numbers = takewhile(more, count())
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call(numbers))

    async def reached(self, number: int) -> None:
        """Returns once this request is about to be sent."""
        if number >= self._sent:
            await self._marks.setdefault(number, asyncio.Event()).wait()

    async def ask(self, planned: Planned, connection: Connection | None = None) -> Connection | None:
        """Sends a request and checks the answer; returns the connection if it can be used again."""
        before = self.served
        code = "none"
        try:
            async with asyncio.timeout(PATIENCE):
                if connection is not None and not connection.usable:
                    connection.hang_up()
                    connection = None
                connection = connection or await self.connect()
                answer = await connection.ask(planned.request)
                if planned.last:
                    await connection.end()
            code = self._judge(planned, answer, before | self.served)
        except (TimeoutError, OSError, IllFormed, WrongAnswer) as error:
            self.violations[f"{planned.kind}: {str(error) or type(error).__name__}"] += 1
            reusable = False
        else:
            reusable = not planned.last
        self.answers[planned.kind, code] += 1
        if connection is not None and not reusable:
            connection.hang_up()
        return connection if reusable else None

    async def connect(self) -> Connection:
        return await Connection.open(HOST, self._port)

    async def _call(self, numbers: Iterator[int]) -> None:
        connection = None
        for number in numbers:
            self._sent = number + 1
            if number in self._marks:
                self._marks[number].set()
            planned = self._mixture.request(number)
            if planned.hang_up is not None:
                await self._leave(planned, planned.hang_up)
            else:
                connection = await self.ask(planned, connection)
        if connection is not None:
            connection.hang_up()

    async def _leave(self, planned: Planned, how: HangUp) -> None:
        async with asyncio.timeout(PATIENCE):
            connection = await self.connect()
        connection.send(planned.request[: how.sent])
        await asyncio.sleep(how.seconds)
        connection.hang_up(rudely=how.rudely)
        self.answers[planned.kind, "none"] += 1

    def _judge(self, planned: Planned, answer: Answer, served: Iterable[str]) -> str:
        """Returns the code of an allowed answer.

        Raises:
            WrongAnswer: it is not allowed, or not well-formed.
        """
        if answer.headers.get("x-request-id") != planned.request_id:
            raise WrongAnswer("the answer is to another request")
        body = read_json(answer)
        code = SCORED if answer.status == 200 else _error_code(answer, body)
        if code not in planned.allowed:
            raise WrongAnswer(f"answered {code} where {', '.join(sorted(planned.allowed))} is allowed")
        pinned = self._digests.get(planned.pinned)
        if code == "model_not_found" and {pinned} == set(served):
            raise WrongAnswer("the model that is served was not found by its version")
        if code == SCORED:
            digest = self._oracle.check(planned.route, planned.items, body)
            if digest not in ({pinned} if pinned else served):
                raise WrongAnswer("a checkpoint answered that is not the one served")
        return code


def read_json(answer: Answer) -> Any:
    if answer.headers.get("content-type") != "application/json":
        raise WrongAnswer("the answer is not JSON by its type")
    try:
        return json.loads(answer.body)
    except ValueError as error:
        raise WrongAnswer("the answer is no JSON") from error


def _error_code(answer: Answer, body: Any) -> str:
    match body:
        case {"error": {"code": str(code), "message": str(message), "details": dict()} as error} if (
            len(body) == 1 and len(error) == 3 and message
        ):
            pass
        case _:
            raise WrongAnswer(f"the answer with status {answer.status} is no error envelope")
    if code not in BY_CODE or BY_CODE[code].status != answer.status:
        raise WrongAnswer(f"the code {code} came with status {answer.status}")
    if answer.status == 429 and not answer.headers.get("retry-after", "").isdigit():
        raise WrongAnswer("an answer with 429 has no Retry-After")
    return code
