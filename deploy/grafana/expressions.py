"""Builds PromQL queries; each is limited to the job and the instances that the user chose on the dashboard."""

from typing import Final

HERE: Final = ('job="$job"', 'instance=~"$instance"')
OF_MODEL: Final = 'model=~"$model"'
SCORING: Final = 'route=~"/score_step|/score_trajectory|/rank_actions"'
PROMPT: Final = 'route=~"/score_step|/rank_actions"'
"""Routes of the latency objective: an agent waits for their replies."""


def series(metric: str, *matchers: str) -> str:
    return f"{metric}{{{', '.join((*HERE, *matchers))}}}"


def rate(counter: str, *matchers: str, by: str = "") -> str:
    """Returns the rate a second, summed over every label but those in ``by``."""
    return _sum(f"rate({series(counter, *matchers)}[$__rate_interval])", by)


def total(gauge: str, *matchers: str, by: str = "") -> str:
    return _sum(series(gauge, *matchers), by)


def share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def mean(histogram: str, *matchers: str, by: str = "") -> str:
    return share(rate(f"{histogram}_sum", *matchers, by=by), rate(f"{histogram}_count", *matchers, by=by))


def quantile(level: float, histogram: str, *matchers: str, by: str = "") -> str:
    buckets = rate(f"{histogram}_bucket", *matchers, by=f"le, {by}" if by else "le")
    return f"histogram_quantile({level}, {buckets})"


def buckets(histogram: str, *matchers: str) -> str:
    """Returns the query of a heat map: the number of observations in each bucket."""
    return _sum(f"increase({series(f'{histogram}_bucket', *matchers)}[$__rate_interval])", "le")


def _sum(expression: str, by: str) -> str:
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"
