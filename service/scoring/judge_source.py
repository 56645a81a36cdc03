"""Scores by a judge on another server: each step is a call of its own. Knows no tokens and no score cache.

For the progress of a step its predecessor is judged too, unless its score is known.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Final, NamedTuple

from agentprm.types import Conversation, Message, Overflow, State, Step, Trajectory, Usage
from model_store.text.conversations import action_text, as_state, as_trajectory
from model_store.text.runs import Unrenderable
from service.generation.judge import Judgement, Prefix, RemoteJudge
from service.queue.calls import Answers, CallQueue
from service.queue.fair_queue import Priority
from service.queue.observer import BatchObserver
from service.queue.terms import Terms
from service.queue.work import Batch
from service.score_cache.keys import Key, KeyChain, KeyScope
from service.scoring.source import Computed, ItemQuestions, distinct

_NO_USAGE: Final = Usage(0, 0)


class JudgedStep(NamedTuple):
    """The last step of ``prefix``, and the key of its score."""

    keys: tuple[Key]
    prefix: Prefix


class JudgeSource:
    """A judge behind its server. Implements ``Source``.

    Args:
        judge: scores one step by a call to the server.
        scope: makes the keys of its scores.
        max_concurrent: calls that may run.
        max_waiting: calls that may wait; over it requests are refused.
        observer: receives each call as a batch of one sequence.
    """

    def __init__(
        self, judge: RemoteJudge, scope: KeyScope, *, max_concurrent: int, max_waiting: int, observer: BatchObserver
    ) -> None:
        self._judge = judge
        self._scope = scope
        self._observer = observer
        self._calls = CallQueue[Key, Prefix, Judgement](
            self._call, max_concurrent=max_concurrent, max_waiting=max_waiting
        )

    @property
    def renders_anew(self) -> bool:
        return False

    @property
    def alive(self) -> bool:
        """Always true: a server that is down may come back."""
        return True

    @property
    def waiting_calls(self) -> int:
        return self._calls.waiting

    def refuse_unless_open(self) -> None:
        self._calls.refuse_unless_open()

    def refuse_if_full(self, caller: str, priority: Priority) -> None:
        self._calls.refuse_if_full(caller, priority)

    async def start(self) -> None:
        await self._judge.check()
        self._calls.open()

    async def close(self) -> None:
        await self._calls.close()
        await self._judge.close()

    def trajectory(
        self, history: Trajectory | Conversation, last: int | None, overflow: Overflow = "error"
    ) -> ItemQuestions[JudgedStep]:
        """One call per step."""
        _refuse_cuts(overflow)
        trajectory = as_trajectory(history)
        chain = self._begin(trajectory.task)
        keys = [_extended(chain, step.observation, step.action).key for step in trajectory.steps]
        first = 0 if last is None else max(0, len(keys) - last)
        steps = [JudgedStep((key,), Prefix(trajectory, end)) for end, key in enumerate(keys[first:], start=first + 1)]
        return ItemQuestions(steps)

    def candidates(
        self, state: State | Conversation, candidates: Sequence[str | Message], overflow: Overflow = "error"
    ) -> ItemQuestions[JudgedStep]:
        """One call per distinct candidate, after one for the step before if there is one."""
        _refuse_cuts(overflow)
        state = as_state(state)
        past = Trajectory(state.task, state.steps)
        chain, steps = self._begin(state.task), list[JudgedStep]()
        for step in state.steps:
            key = _extended(chain, step.observation, step.action).key
            steps = [JudgedStep((key,), Prefix(past, len(state.steps)))]
        for action in map(action_text, distinct(candidates)):
            key = _extended(chain.branch(), state.observation, action).key
            steps.append(JudgedStep((key,), Prefix(past, len(state.steps), Step(state.observation, action))))
        return ItemQuestions(steps)

    async def compute(self, questions: Sequence[JudgedStep], known: Mapping[Key, float], terms: Terms) -> Computed:
        """Calls the judge once for each key that is not known."""
        missing = {key: step.prefix for step in questions for key in step.keys if key not in known}
        answers = await self._calls.submit(missing, terms) if missing else Answers[Key, Judgement]({}, {}, set(), 0, 0)
        scores = {key: judgement.raw for key, judgement in answers.results.items()}
        return Computed(scores, list(_usages(questions, answers)), answers.queue, answers.forward, answers.failed)

    async def _call(self, prefix: Prefix) -> Judgement:
        began = perf_counter()
        judgement = await self._judge.judge(prefix)
        self._observer.on_batch(Batch(1, judgement.tokens, 0, perf_counter() - began))
        return judgement

    def _begin(self, task: str) -> KeyChain:
        return self._scope.begin(_digest(task))


def _refuse_cuts(overflow: Overflow) -> None:
    if overflow != "error":
        raise Unrenderable(
            "overflow: a judge's own server decides how long a prompt may be, so nothing is cut here; leave it out"
        )


def _extended(chain: KeyChain, *segments: str) -> KeyChain:
    for segment in segments:
        chain.extend(_digest(segment))
    return chain


def _digest(text: str) -> bytes:
    """Hash of a text. Its fixed length makes different lists of segments different bytes."""
    return blake2b(text.encode(), digest_size=32).digest()


def _usages(steps: Sequence[JudgedStep], answers: Answers[Key, Judgement]) -> Iterator[Usage]:
    """Tokens per step. A judgement counts at its first step in the request; a known one costs no tokens.

    The tokens of a call that another request had started count as known.
    """
    counted: set[Key] = set()
    for (key,), _ in steps:
        if key in answers.results and key not in counted:
            tokens, shared = answers.results[key].tokens, key in answers.shared
            yield Usage(tokens, 0 if shared else tokens, 0, tokens if shared else 0)
        else:
            yield _NO_USAGE
        counted.add(key)
