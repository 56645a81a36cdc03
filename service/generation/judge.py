"""A generative judge behind its server: a step in, its raw score out."""

from typing import Final, NamedTuple

from agentprm.errors import UpstreamFailed
from agentprm.types import Step, Trajectory
from model_store.format.judge import Judge
from model_store.format.template import Template
from service.generation.completions import Generated
from service.generation.server import TextServer
from service.generation.verdict import raw_score


class Prefix(NamedTuple):
    """The first ``length`` steps of a trajectory; they are cut out when it is their turn, there may be many."""

    trajectory: Trajectory
    length: int


PROBE: Final = Prefix(Trajectory("Say hello.", (Step("", "hello"),)), 1)


class Judgement(NamedTuple):
    """``tokens``: what the server read and wrote for it, as far as it tells."""

    raw: float
    tokens: int


class RemoteJudge:
    """``template`` says how the steps before the one that is judged are written."""

    def __init__(self, judge: Judge, template: Template, server: TextServer) -> None:
        self._judge = judge
        self._template = template
        self._server = server

    async def judge(self, prefix: Prefix) -> Judgement:
        """Of its last step.

        Raises:
            UpstreamFailed: the server's answer is none, or holds no verdict.
            Overloaded, NotReady: the server is.
        """
        generated = await self._generate(prefix, self._judge.max_tokens)
        return Judgement(raw_score(self._judge, generated), generated.used)

    async def check(self) -> None:
        """Generates one token: the server is there, has the model and tells probabilities. Raises as ``judge`` does."""
        await self._generate(PROBE, 1)

    async def close(self) -> None:
        await self._server.close()

    async def _generate(self, prefix: Prefix, max_tokens: int) -> Generated:
        step = Trajectory(prefix.trajectory.task, prefix.trajectory.steps[: prefix.length])
        judge, history = self._judge, self._template.steps_text(step.steps[:-1])
        if judge.text:
            generated = await self._server.complete(
                judge.prompt(step, history), max_tokens=max_tokens, top_logprobs=judge.top_logprobs
            )
        else:
            generated = await self._server.chat(
                judge.chat(step, history),
                judge.model,
                max_tokens=max_tokens,
                temperature=0.0,
                logprobs=True,
                top_logprobs=judge.top_logprobs,
            )
        if not generated.tokens:
            raise UpstreamFailed("the judge's server tells no probabilities of tokens")
        return generated
