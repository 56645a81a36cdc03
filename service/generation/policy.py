"""Actions to choose from: sampled from the agent's own model, in the state that it is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentprm import wire
from agentprm.errors import UpstreamFailed
from agentprm.types import State
from service.generation.server import TextServer
from service.queue.calls import Calls
from service.queue.terms import Terms, within_deadline


class SampledAction(NamedTuple):
    """``complete``: the policy ended it itself, it was not cut at the limit."""

    text: str
    complete: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Draw:
    """One action of those that an item asks for: no two draws are equal work."""

    messages: list[dict[str, str]]
    sample: wire.Sample


class Policy:
    """Samples from one model behind a server.

    Args:
        at_once: calls that may run.
        max_waiting: calls that may wait.
    """

    def __init__(self, server: TextServer, model: str, *, at_once: int, max_waiting: int) -> None:
        self._server = server
        self._model = model
        self._calls = Calls[_Draw, _Draw, SampledAction](self._draw, at_once=at_once, max_waiting=max_waiting)

    def open(self) -> None:
        self._calls.open()

    async def close(self) -> None:
        await self._calls.close()
        await self._server.close()

    async def sample(
        self, asked: Sequence[tuple[State, wire.Sample]], terms: Terms
    ) -> tuple[list[list[SampledAction]], float]:
        """As many actions for each state as asked, and the seconds that took.

        Every action is a call of its own, since not every server draws several in one.

        Raises:
            UpstreamFailed: the server's answer is none, or an action is empty.
            RequestError: as ``Calls.submit``.
        """
        chats = [(to_chat(state), sample) for state, sample in asked]
        draws = [[_Draw(chat, sample) for _ in range(sample.n)] for chat, sample in chats]
        async with within_deadline(terms.deadline, "sample"):
            answers = await self._calls.submit({draw: draw for item in draws for draw in item}, terms)
        return [[answers.results[draw] for draw in item] for item in draws], answers.queue + answers.forward

    async def _draw(self, draw: _Draw) -> SampledAction:
        sample = draw.sample
        generated = await self._server.chat(
            draw.messages,
            self._model,
            max_tokens=sample.max_tokens,
            temperature=sample.temperature,
            stop=list(sample.stop) or None,
        )
        if not generated.text.strip():
            raise UpstreamFailed("the policy's server sent an empty action")
        return SampledAction(generated.text, generated.complete)


def to_chat(state: State) -> list[dict[str, str]]:
    """The task with the first observation, then action and observation in turns: many templates take no other order."""
    shown = [*(step.observation for step in state.steps), state.observation]
    first = f"{state.task}\n\n{shown[0]}" if shown[0] else state.task
    chat = [{"role": "user", "content": first}]
    for step, observation in zip(state.steps, shown[1:], strict=True):
        chat += [{"role": "assistant", "content": step.action}, {"role": "user", "content": observation}]
    return chat
