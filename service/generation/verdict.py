"""What a judge has written -> its raw score: log P(good) - log P(bad) at the place of the verdict."""

import math
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final

from agentprm.errors import UpstreamFailed
from model_store.format.judge import Judge
from service.generation.completions import Alternative, Generated, Token

LEAST_MASS: Final = 0.01
"""Verdicts that have less than this between them are noise: the judge was writing something else."""
LEAST_REST: Final = 1e-6
"""What is left of 1 beside the tokens that are told is not known better than this."""


def raw_score(judge: Judge, generated: Generated) -> float:
    """Of a verdict of which only one side is among the likeliest tokens, the other counts as the least of them.

    Raises:
        UpstreamFailed: there is no verdict.
    """
    alternatives = _at_the_verdict(judge, generated)
    good, bad = (_log_sum(alternatives, texts) for texts in (judge.good, judge.bad))
    if math.exp(good) + math.exp(bad) < LEAST_MASS:
        raise _no_verdict(f"neither verdict is among the {len(alternatives)} likeliest tokens where it should stand")
    if math.isfinite(good) and math.isfinite(bad):
        return good - bad
    most = _most_of_the_rest(alternatives)
    if max(good, bad) <= most:
        raise _no_verdict(f"one verdict is among the {len(alternatives)} likeliest tokens, no likelier than others")
    return good - most if math.isfinite(good) else most - bad


def _at_the_verdict(judge: Judge, generated: Generated) -> list[Alternative]:
    """The tokens that may stand there, without what of them comes before, white space cut off."""
    texts = [token.text for token in generated.tokens]
    written = "".join(texts)
    begin = written.rfind(judge.after) + len(judge.after) if judge.after else 0
    if judge.after not in written:
        cut = "" if generated.complete else f", and was cut after {len(texts)} tokens"
        raise _no_verdict(f"it wrote nothing after which its verdict stands{cut}")
    for token, end in zip(generated.tokens, accumulate(map(len, texts)), strict=True):
        before = token.text[: max(0, begin - (end - len(token.text)))]
        if end > begin and token.text[len(before) :].strip():
            return _after(before, token)
    raise _no_verdict("it ended before its verdict" if generated.complete else "it was cut before its verdict")


def _after(before: str, token: Token) -> list[Alternative]:
    """Where a token reaches over the place, those count that begin as it does."""
    return [
        Alternative(other.text[len(before) :].strip(), other.logprob)
        for other in token.alternatives
        if other.text.startswith(before)
    ]


def _log_sum(alternatives: Sequence[Alternative], texts: Collection[str]) -> float:
    found = [other.logprob for other in alternatives if other.text in texts]
    most = max(found, default=-math.inf)
    return most + math.log(sum(math.exp(one - most) for one in found)) if found else most


def _most_of_the_rest(alternatives: Sequence[Alternative]) -> float:
    """No token that is not told can have more than this."""
    told = sum(math.exp(other.logprob) for other in alternatives)
    return min(*(other.logprob for other in alternatives), math.log(max(1 - told, LEAST_REST)))


def _no_verdict(why: str) -> UpstreamFailed:
    return UpstreamFailed(f"the judge gave no verdict: {why}")
