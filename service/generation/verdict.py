"""The raw score of a judge's completion: log P(good) - log P(bad) where its verdict stands, or the number there."""

import math
import re
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final

from agentprm.errors import UpstreamFailed
from model_store.format.judge import Judge, NumberVerdict
from service.generation.completions import Alternative, Completion, Token

MIN_VERDICT_MASS: Final = 0.01
"""Smallest probability that both verdicts may have together. Below it the judge was writing something else."""
MIN_UNREPORTED_MASS: Final = 1e-6
"""Smallest probability assumed for the tokens that are not reported; rounding hides anything smaller."""
_PLAIN_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def raw_score(judge: Judge, completion: Completion) -> float:
    """Returns the raw score of a verdict.

    Raises:
        UpstreamFailed: there is no verdict.
    """
    if judge.number is None:
        return _log_odds(judge, completion)
    number = _number(_written_number(judge, judge.number.until, completion))
    return _share_of_range(number, judge.number)


def _written_number(judge: Judge, until: str, completion: Completion) -> str:
    """Returns what stands between the last ``judge.after`` and ``until``, or the end of its line.

    A text that was cut has no verdict, even if it holds a number: the model may have been about to correct it.
    """
    if not completion.complete:
        raise _no_verdict(f"it was cut, and at most {judge.max_tokens} tokens may be generated")
    _, found, rest = completion.text.rpartition(judge.after) if judge.after else ("", "found", completion.text)
    if not found:
        raise _no_verdict("it wrote nothing after which its number stands")
    written, end, behind = rest.lstrip().partition(until or "\n")
    if until and not end:
        raise _no_verdict("it wrote nothing that ends its number")
    if until and behind[:1].isdigit():  # 7/100 is not 7 of 10, and 1,000 is not 1
        raise _no_verdict("its number goes on behind its end")
    return written.strip()


def _number(written: str) -> float:
    """Returns a plain decimal number. Words, fractions, percent signs, exponents and other digits are none."""
    if not _PLAIN_NUMBER.fullmatch(written):
        raise _no_verdict("what stands where its number should is no plain decimal number")
    return float(written)


def _share_of_range(value: float, number: NumberVerdict) -> float:
    """Returns 0 for the lowest number, 1 for the highest, linear between them. Nothing outside is clipped."""
    if not number.low <= value <= number.high:
        raise _no_verdict(f"its number is not from {number.low:g} to {number.high:g}")
    return (value - number.low) / (number.high - number.low)


def _log_odds(judge: Judge, completion: Completion) -> float:
    """Returns log P(good) - log P(bad) where the verdict stands.

    If only one verdict is among the likeliest tokens, the other gets the largest probability that an unreported token
    can have.
    """
    alternatives = _alternatives_at_verdict(judge, completion)
    good, bad = (_log_sum(alternatives, texts) for texts in (judge.good, judge.bad))
    if math.exp(good) + math.exp(bad) < MIN_VERDICT_MASS:
        raise _no_verdict(f"neither verdict is among the {len(alternatives)} likeliest tokens where it should stand")
    if math.isfinite(good) and math.isfinite(bad):
        return good - bad
    unreported = _max_unreported_logprob(alternatives)
    if max(good, bad) <= unreported:
        raise _no_verdict(f"one verdict is among the {len(alternatives)} likeliest tokens, no likelier than others")
    return good - unreported if math.isfinite(good) else unreported - bad


def _alternatives_at_verdict(judge: Judge, completion: Completion) -> list[Alternative]:
    """Returns the alternatives where the verdict begins: the first token with text after the last ``judge.after``.

    Their texts hold no part of ``judge.after`` and no white space around the verdict.
    """
    texts = [token.text for token in completion.tokens]
    written = "".join(texts)
    begin = written.rfind(judge.after) + len(judge.after) if judge.after else 0
    if judge.after not in written:
        cut = "" if completion.complete else f", and was cut after {len(texts)} tokens"
        raise _no_verdict(f"it wrote nothing after which its verdict stands{cut}")
    for token, end in zip(completion.tokens, accumulate(map(len, texts)), strict=True):
        before = token.text[: max(0, begin - (end - len(token.text)))]
        if end > begin and token.text[len(before) :].strip():
            return _alternatives_after(before, token)
    raise _no_verdict("it ended before its verdict" if completion.complete else "it was cut before its verdict")


def _alternatives_after(before: str, token: Token) -> list[Alternative]:
    """Returns the alternatives that begin with ``before``, without it: the verdict may start inside a token."""
    return [
        Alternative(other.text[len(before) :].strip(), other.logprob)
        for other in token.alternatives
        if other.text.startswith(before)
    ]


def _log_sum(alternatives: Sequence[Alternative], texts: Collection[str]) -> float:
    """Returns the log of the summed probabilities of ``texts``; -inf if none of them is reported."""
    logprobs = [other.logprob for other in alternatives if other.text in texts]
    largest = max(logprobs, default=-math.inf)
    return largest + math.log(sum(math.exp(logprob - largest) for logprob in logprobs)) if logprobs else largest


def _max_unreported_logprob(alternatives: Sequence[Alternative]) -> float:
    """Returns the largest log-probability that a token outside ``alternatives`` can have."""
    reported = sum(math.exp(other.logprob) for other in alternatives)
    return min(*(other.logprob for other in alternatives), math.log(max(1 - reported, MIN_UNREPORTED_MASS)))


def _no_verdict(why: str) -> UpstreamFailed:
    return UpstreamFailed(f"the judge gave no verdict: {why}")
