"""The dashboard ``scores``, for the owners of the models: distributions of the scores, and their drift."""

from typing import Final

from deploy.grafana.dashboard import Dashboard
from deploy.grafana.expressions import OF_MODEL, buckets, mean, quantile, rate, series, share
from deploy.grafana.panels import RED, YELLOW, Panel, Query, Row

PROMISE: Final = "agentprm_promise"
PROGRESS: Final = "agentprm_progress"
BY_MODEL: Final = "{{model}}"


def share_above(edge: float) -> str:
    """Returns the query for the share of promises above ``edge``."""
    below = rate(f"{PROMISE}_bucket", f'le="{edge}"', OF_MODEL, by="model")
    return f"1 - {share(below, rate(f'{PROMISE}_count', OF_MODEL, by='model'))}"


def day_before(histogram: str) -> str:
    """Returns the query for the mean of an hour, one day earlier."""
    sums, counts = (f"{series(f'{histogram}_{part}', OF_MODEL)}[1h] offset 1d" for part in ("sum", "count"))
    return share(f"sum by (model) (rate({sums}))", f"sum by (model) (rate({counts}))")


DISTRIBUTIONS: Final = Row(
    "Distributions",
    [
        Panel(
            "Promise",
            "How many of the answered promises were how high.",
            [Query(buckets(PROMISE, OF_MODEL), "{{le}}")],
            kind="heatmap", width=12, height=9,
        ),
        Panel(
            "Progress",
            "How many of the answered steps changed the promise by how much.",
            [Query(buckets(PROGRESS, OF_MODEL), "{{le}}")],
            kind="heatmap", width=12, height=9,
        ),
    ],
)  # fmt: skip

MEANS: Final = Row(
    "By model",
    [
        Panel(
            "Mean promise",
            "Of what was answered; candidates of a ranking count one by one.",
            [Query(mean(PROMISE, OF_MODEL, by="model"), BY_MODEL)],
            width=6, highest=1,
        ),
        Panel(
            "Progress of a step",
            "Half of the steps changed the promise by at most p50: around 0 for agents that stand still.",
            [Query(quantile(level, PROGRESS, OF_MODEL), f"p{level * 100:.0f}") for level in (0.1, 0.5, 0.9)],
            width=6, lowest=None,
        ),
        Panel(
            "Promises over 0.9",
            "Share of the answers that are all but certain.",
            [Query(share_above(0.9), BY_MODEL)],
            unit="percentunit", width=6, highest=1,
        ),
        Panel(
            "Scores a second",
            "Promises answered.",
            [Query(rate(f"{PROMISE}_count", OF_MODEL, by="model"), BY_MODEL)],
            width=6,
        ),
    ],
)  # fmt: skip

DRIFT: Final = Row(
    "Drift",
    [
        Panel(
            "Drift of promise (PSI)",
            "This hour's promises against the same hour of the day before. Over 0.25 there is an alert. "
            "A new version of a model has no day before.",
            [Query(f'job_model:agentprm_promise:psi{{job="$job", {OF_MODEL}}}', BY_MODEL)],
            thresholds=((0.1, YELLOW), (0.25, RED)),
        ),
        Panel(
            "Mean promise against the day before",
            "Dashed: the mean of an hour, 24 hours earlier.",
            [
                Query(mean(PROMISE, OF_MODEL, by="model"), "{{model}} now"),
                Query(day_before(PROMISE), "{{model}} the day before", limit=True),
            ],
            highest=1,
        ),
        Panel(
            "Invalid scores",
            "NaN or infinite, a second: any is an alert. Their requests were answered with an error.",
            [Query(rate("agentprm_invalid_scores_total", OF_MODEL, by="model"), BY_MODEL)],
            unit="ops",
        ),
    ],
)  # fmt: skip

MODELS: Final = Row(
    "Models",
    [
        Panel(
            "Loaded models",
            "The digest binds a version to its weights: replicas whose digests differ give other scores.",
            [Query(series("agentprm_model_info", OF_MODEL), "")],
            kind="table", width=24, height=6, columns=("model", "digest", "instance", "device", "dtype"),
        ),
    ],
)  # fmt: skip

SCORES: Final = Dashboard(
    "scores",
    "AgentPRM: scores",
    "Distributions of promise and progress, drift, invalid scores, loaded models.",
    [DISTRIBUTIONS, MEANS, DRIFT, MODELS],
)
