"""A generative judge behind its server: a step in, its raw score out."""

from typing import Final, NamedTuple

from agentprm.errors import UpstreamFailed
from agentprm.types import Step, Trajectory
from model_store.format.judge import Judge
from model_store.format.template import Template
from service.generation.completions import Completion
from service.generation.server import GenerationClient
from service.generation.verdict import raw_score


class Prefix(NamedTuple):
    """The first ``length`` steps of a trajectory, and a step after them if one is proposed.

    They are joined when the call runs: many prefixes of one history may wait.
    """

    trajectory: Trajectory
    length: int
    proposed: Step | None = None

    def joined(self) -> Trajectory:
        proposed = () if self.proposed is None else (self.proposed,)
        return Trajectory(self.trajectory.task, (*self.trajectory.steps[: self.length], *proposed))


PROBE: Final = Prefix(Trajectory("Say hello.", (Step("", "hello"),)), 1)


class Judgement(NamedTuple):
    """``tokens``: tokens of prompt and completion, as far as the server reports them."""

    raw: float
    tokens: int


class RemoteJudge:
    """Scores steps by the verdicts that a server generates.

    Args:
        judge: the prompt, and the verdicts to read.
        template: writes the steps before the judged one.
        client: calls the server; closed with this judge.
    """

    def __init__(self, judge: Judge, template: Template, client: GenerationClient) -> None:
        self._judge = judge
        self._template = template
        self._client = client

    async def judge(self, prefix: Prefix) -> Judgement:
        """Scores the last step of ``prefix``.

        Raises:
            UpstreamFailed: the server's reply cannot be read, or holds no verdict.
            Overloaded, NotReady: the server is overloaded, not ready or out of reach.
        """
        completion = await self._generate(prefix, self._judge.max_tokens)
        return Judgement(raw_score(self._judge, completion), completion.used)

    async def check(self) -> None:
        """Generates one token, to check that the server runs, has the model and reports log-probabilities if it has to.

        Raises as ``judge`` does.
        """
        await self._generate(PROBE, 1)

    async def close(self) -> None:
        await self._client.close()

    async def _generate(self, prefix: Prefix, max_tokens: int) -> Completion:
        trajectory = prefix.joined()
        judge, history = self._judge, self._template.steps_text(trajectory.steps[:-1])
        top_logprobs = judge.top_logprobs if judge.number is None else None
        if judge.text:
            prompt = judge.prompt(trajectory, history)
            completion = await self._client.complete(prompt, max_tokens=max_tokens, top_logprobs=top_logprobs)
        else:
            completion = await self._client.chat(
                judge.chat(trajectory, history),
                judge.model,
                max_tokens=max_tokens,
                temperature=0.0,
                **({} if top_logprobs is None else {"logprobs": True, "top_logprobs": top_logprobs}),
            )
        if top_logprobs is not None and not completion.tokens:
            raise UpstreamFailed("the judge's server tells no probabilities of tokens")
        return completion
