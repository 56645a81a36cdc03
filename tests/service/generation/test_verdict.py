"""Raw scores of judges from the tokens that they wrote."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentprm.errors import UpstreamFailed
from model_store.format.judge import Judge
from service.generation.completions import Alternative, Completion, Token
from service.generation.verdict import raw_score

JUDGE = Judge(("Yes", "yes"), ("No",), text="{action}")
shares = st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5).map(
    lambda weights: [weight / sum(weights) for weight in weights]
)


def token(text: str, **likeliest: float) -> Token:
    shares = {text: 1.0} if not likeliest else {name.replace("_", " "): share for name, share in likeliest.items()}
    return Token(text, [Alternative(other, math.log(share)) for other, share in shares.items()])


def read(judge: Judge, *tokens: Token, complete: bool = True) -> float:
    return raw_score(judge, Completion("", list(tokens), complete, 0))


@given(shares=shares)
@settings(max_examples=50, deadline=None)
def test_raw_is_the_log_odds_of_all_spellings(shares: list[float]) -> None:
    a, b, c, no, _ = shares
    likeliest = {"Yes": a, "_Yes": b, "yes": c, "No": no}
    if a + b + c + no >= 0.01:
        assert math.isclose(read(JUDGE, token("x", **likeliest)), math.log((a + b + c) / no), abs_tol=1e-9)


@given(shares=shares)
@settings(max_examples=100, deadline=None)
def test_a_bound_has_the_right_sign_and_never_says_more_than_the_whole_distribution(shares: list[float]) -> None:
    """The server reports the three likeliest of five tokens."""
    all_of_them = dict(zip(("Yes", "No", "Hm", "So", "Oh"), shares, strict=True))
    reported = dict(sorted(all_of_them.items(), key=lambda token: -token[1])[:3])
    whole = math.log(all_of_them["Yes"] / all_of_them["No"])
    if len({"Yes", "No"} & reported.keys()) == 1:
        try:
            raw = read(JUDGE, token("Hm", **reported))
        except UpstreamFailed:
            return
        assert raw * whole > 0
        assert abs(raw) <= abs(whole) + 1e-9


def test_white_space_before_a_verdict_is_passed_over() -> None:
    judge = Judge(("1",), ("0",), text="{action}", after="Label:", max_tokens=9)
    tokens = [token("Label"), token(":"), token(" "), token("\n"), token("1", **{"1": 0.8, "0": 0.2})]
    assert math.isclose(read(judge, *tokens), math.log(4))


def test_the_last_place_counts_and_a_token_that_reaches_over_it_is_read_behind_it() -> None:
    judge = Judge(("Yes",), ("No",), text="{action}", after="<answer>", max_tokens=9)
    early = [token("<answer>"), token("No", No=0.9, Yes=0.1)]
    late = token("wer>Yes", **{"wer>Yes": 0.6, "wer>No": 0.3, "Yes": 0.1})
    assert math.isclose(read(judge, *early, token("<ans"), late), math.log(2))


@pytest.mark.parametrize(
    ("tokens", "complete", "why"),
    [
        (["thinking"], False, "wrote nothing after which its verdict stands, and was cut after 1 tokens"),
        (["thinking"], True, "wrote nothing after which its verdict stands$"),
        (["Label:"], True, "it ended before its verdict"),
        (["Label:", " "], False, "it was cut before its verdict"),
        (["Label:", "maybe"], True, "neither verdict is among the 1 likeliest"),
    ],
)
def test_no_verdict_is_an_error_that_says_why(tokens: list[str], complete: bool, why: str) -> None:
    judge = Judge(("1",), ("0",), text="{action}", after="Label:", max_tokens=9)
    with pytest.raises(UpstreamFailed, match=f"^the judge gave no verdict: .*{why}"):
        read(judge, *map(token, tokens), complete=complete)


def test_a_verdict_alone_at_the_server_is_taken_as_sure_as_rounding_lets_it_be() -> None:
    assert math.isclose(read(JUDGE, token("No", No=1.0)), math.log(1e-6))
