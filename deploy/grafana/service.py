"""The dashboard ``service``, for the engineer on call: requests, answers and refusals."""

from typing import Final

from deploy.grafana.dashboard import Dashboard
from deploy.grafana.expressions import OF_MODEL, PROMPT, SCORING, buckets, quantile, rate, series, share, total
from deploy.grafana.panels import RED, YELLOW, Panel, Query, Row

REQUESTS: Final = "agentprm_requests_total"
DURATION: Final = "agentprm_request_duration_seconds"
FAILED: Final = 'code=~"5.."'
BY_MODEL: Final = rate(REQUESTS, SCORING, OF_MODEL, by="model")
BURN_RATES: Final = ((6, YELLOW), (14.4, RED))


def burn_rate(objective: str) -> list[Query]:
    windows = ("5m", "1h", "6h")
    return [Query(f'job:agentprm_{objective}:burn_rate{window}{{job="$job"}}', f"last {window}") for window in windows]


AT_A_GLANCE: Final = Row(
    "At a glance",
    [
        Panel(
            "Ready",
            "Replicas whose /ready answers 200.",
            [Query(total("agentprm_ready"), "ready")],
            kind="stat", width=4, height=4,
        ),
        Panel(
            "Scoring requests",
            "Requests a second to /score_step, /score_trajectory and /rank_actions.",
            [Query(rate(REQUESTS, SCORING, OF_MODEL), "requests")],
            unit="reqps", kind="stat", width=4, height=4,
        ),
        Panel(
            "Errors",
            "Share of scoring requests answered with a 5xx; the objective allows 0.5 %.",
            [Query(share(rate(REQUESTS, SCORING, FAILED, OF_MODEL), rate(REQUESTS, SCORING, OF_MODEL)), "errors")],
            unit="percentunit", kind="stat", width=4, height=4, thresholds=((0.005, YELLOW), (0.05, RED)),
        ),
        Panel(
            "p95",
            "95 % of /score_step and /rank_actions were answered within this time; the objective is 250 ms.",
            [Query(quantile(0.95, DURATION, PROMPT), "p95")],
            unit="s", kind="stat", width=4, height=4, thresholds=((0.25, YELLOW), (1, RED)),
        ),
        Panel(
            "Refused",
            "Requests refused a second though their form was right.",
            [Query(rate("agentprm_rejected_total"), "refused")],
            unit="reqps", kind="stat", width=4, height=4,
        ),
        Panel(
            "Running",
            "Requests in flight, probes not counted.",
            [Query(total("agentprm_requests_running"), "running")],
            kind="stat", width=4, height=4,
        ),
    ],
)  # fmt: skip

TRAFFIC: Final = Row(
    "Traffic",
    [
        Panel(
            "Requests by route",
            "Answered requests a second, probes included.",
            [Query(f"{rate(REQUESTS, OF_MODEL, by='route')} > 0", "{{route}}")],
            unit="reqps", stacked=True,
        ),
        Panel(
            "Scoring requests by code",
            "499: the client left before the reply.",
            [Query(f"{rate(REQUESTS, SCORING, OF_MODEL, by='code')} > 0", "{{code}}")],
            unit="reqps", stacked=True,
        ),
        Panel(
            "Scoring requests by model",
            "none: refused before a model was found.",
            [Query(f'label_replace({BY_MODEL}, "model", "none", "model", "")', "{{model}}")],
            unit="reqps", stacked=True,
        ),
    ],
)  # fmt: skip

LATENCY: Final = Row(
    "Latency",
    [
        Panel(
            "Latency of /score_step and /rank_actions",
            "From the first byte of a request to the last of its reply; refusals count too. Dashed: the objective.",
            [Query(quantile(level, DURATION, PROMPT), f"p{level * 100:.0f}") for level in (0.5, 0.95, 0.99)],
            unit="s", thresholds=((0.25, RED),),
        ),
        Panel(
            "p95 by route",
            "A bulk route answers later: interactive work goes first.",
            [Query(quantile(0.95, DURATION, SCORING, by="route"), "{{route}}")],
            unit="s",
        ),
        Panel(
            "Latency, all scoring requests",
            "How many requests took how long.",
            [Query(buckets(DURATION, SCORING), "{{le}}")],
            unit="s", kind="heatmap",
        ),
    ],
)  # fmt: skip

OBJECTIVES: Final = Row(
    "Objectives",
    [
        Panel(
            "Burn rate: availability",
            "Objective: 99.5 % of scoring requests answered without a 5xx. At 1 the budget lasts its 30 days; from 6 "
            "(6 h and 30 min) and 14.4 (1 h and 5 min) on there is an alert.",
            burn_rate("availability"),
            width=12, thresholds=BURN_RATES,
        ),
        Panel(
            "Burn rate: latency",
            "Objective: 95 % of /score_step and /rank_actions within 250 ms. Alerts as for availability.",
            burn_rate("latency"),
            width=12, thresholds=BURN_RATES,
        ),
    ],
)  # fmt: skip

REFUSALS: Final = Row(
    "Refusals",
    [
        Panel(
            "Refused by reason",
            "not_ready counts the probes of /ready too.",
            [Query(rate("agentprm_rejected_total", by="reason"), "{{reason}}")],
            unit="reqps", width=6, stacked=True,
        ),
        Panel(
            "Requests in flight",
            "Against the most that may run at once, of all instances together.",
            [
                Query(total("agentprm_requests_running"), "running"),
                Query(total("agentprm_requests_limit"), "limit", limit=True),
            ],
            width=6,
        ),
        Panel(
            "Deadlines missed by stage",
            "Where requests ran out of the time that their callers gave them.",
            [Query(rate("agentprm_deadline_exceeded_total", by="stage"), "{{stage}}")],
            unit="reqps", width=6, stacked=True,
        ),
        Panel(
            "Cancelled",
            "Requests whose client left before the reply.",
            [Query(f"{rate('agentprm_cancelled_total', by='route')} > 0", "{{route}}")],
            unit="reqps", width=6, stacked=True,
        ),
    ],
)  # fmt: skip

REPLICAS: Final = Row(
    "Replicas",
    [
        Panel(
            "Ready by instance",
            "1 while /ready answers 200.",
            [Query(series("agentprm_ready"), "{{instance}}")],
            width=12, highest=1, words={0: "no", 1: "yes"},
        ),
        Panel(
            "Versions",
            "What runs where.",
            [Query(series("agentprm_build_info"), "")],
            kind="table", width=12, columns=("instance", "version", "python", "torch"),
        ),
    ],
)  # fmt: skip

SERVICE: Final = Dashboard(
    "service",
    "AgentPRM: service",
    "Traffic, errors, latency, objectives and refusals. Requests carry a model once one was found.",
    [AT_A_GLANCE, TRAFFIC, LATENCY, OBJECTIVES, REFUSALS, REPLICAS],
)
