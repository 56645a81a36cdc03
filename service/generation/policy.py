"""The policy: samples the actions to rank from the agent's own model, given its state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentprm import wire
from agentprm.errors import RequestError, UpstreamFailed
from agentprm.types import Conversation, Message, State
from service.generation.server import GenerationClient
from service.queue.calls import Answers, CallQueue
from service.queue.terms import Terms, within_deadline


class SampledAction(NamedTuple):
    """``complete``: the policy ended the action itself, and no token limit cut it."""

    text: str
    complete: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Draw:
    """One call for one action. Draws compare by identity, so that equal ones are not merged into one call."""

    messages: list[dict[str, Any]]
    sample: wire.Sample


class Policy:
    """Samples actions from one model behind a server.

    Args:
        client: calls the server; closed with this policy.
        model: name of the model on that server.
        max_concurrent: calls that may run at once.
        max_waiting: calls that may wait.
    """

    def __init__(self, client: GenerationClient, model: str, *, max_concurrent: int, max_waiting: int) -> None:
        self._client = client
        self._model = model
        self._calls = CallQueue[_Draw, _Draw, SampledAction](
            self._draw, max_concurrent=max_concurrent, max_waiting=max_waiting
        )

    def open(self) -> None:
        self._calls.open()

    async def close(self) -> None:
        await self._calls.close()
        await self._client.close()

    async def sample(
        self, requests: Sequence[tuple[State | Conversation, wire.Sample]], terms: Terms
    ) -> tuple[list[list[SampledAction] | RequestError], float]:
        """Returns the requested number of actions for each state, and the seconds that this took.

        Every action is a call of its own: not every server can sample several in one. With ``terms.per_item`` a failed
        call's error takes the place of its state's actions.

        Raises:
            UpstreamFailed: the server's reply cannot be read, or an action is empty.
            RequestError: as in ``CallQueue.submit``.
        """
        chats = [(to_chat(state), sample) for state, sample in requests]
        draws = [[_Draw(chat, sample) for _ in range(sample.n)] for chat, sample in chats]
        async with within_deadline(terms.deadline, "sample"):
            answers = await self._calls.submit({draw: draw for item in draws for draw in item}, terms)
        return [_actions(item, answers) for item in draws], answers.queue + answers.forward

    async def _draw(self, draw: _Draw) -> SampledAction:
        sample = draw.sample
        completion = await self._client.chat(
            draw.messages,
            self._model,
            max_tokens=sample.max_tokens,
            temperature=sample.temperature,
            stop=list(sample.stop) or None,
        )
        if not completion.text.strip():
            raise UpstreamFailed("the policy's server sent an empty action")
        return SampledAction(completion.text, completion.complete)


def _actions(draws: Sequence[_Draw], answers: Answers[_Draw, SampledAction]) -> list[SampledAction] | RequestError:
    for draw in draws:
        if error := answers.failed.get(draw):
            return error
    return [answers.results[draw] for draw in draws]


def to_chat(state: State | Conversation) -> list[dict[str, Any]]:
    """Returns ``state`` as the messages of an OpenAI chat. A chat keeps its turns; its tools are not told.

    The task and the first observation of a state share a message: many templates refuse two user messages in a row.
    """
    if isinstance(state, Conversation):
        return list(map(_as_sent, state.messages))
    observations = [*(step.observation for step in state.steps), state.observation]
    first = f"{state.task}\n\n{observations[0]}" if observations[0] else state.task
    chat = [{"role": "user", "content": first}]
    for step, observation in zip(state.steps, observations[1:], strict=True):
        chat += [{"role": "assistant", "content": step.action}, {"role": "user", "content": observation}]
    return chat


def _as_sent(message: Message) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.text or None}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    named = {"tool_call_id": message.tool_call_id, "name": message.name}
    return sent | {key: value for key, value in named.items() if value is not None}
