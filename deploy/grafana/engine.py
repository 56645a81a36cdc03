"""The dashboard ``engine``: queue, stages, batches, tokens, both caches, the process and its device."""

from typing import Final

from deploy.grafana.dashboard import Dashboard
from deploy.grafana.expressions import OF_MODEL, buckets, mean, quantile, rate, series, share, total
from deploy.grafana.panels import Panel, Query, Row

TOKENS: Final = "agentprm_tokens_total"
LOOKUPS: Final = "agentprm_score_cache_lookups_total"
REDIS: Final = "agentprm_score_cache_operation_duration_seconds"
FORWARD: Final = "agentprm_forward_duration_seconds"
ERRORS: Final = rate("agentprm_score_cache_errors_total", by="operation, kind")
PADDING: Final = rate("agentprm_padding_tokens_total", OF_MODEL, by="model")
COMPUTED: Final = rate(TOKENS, 'source="computed"', OF_MODEL, by="model")

QUEUE: Final = Row(
    "Queue",
    [
        Panel(
            "Queue: tokens",
            "Tokens still to be computed for what waits, the fullest instance; at the limit requests are refused.",
            [
                Query(f"max by (model) ({series('agentprm_queue_tokens', OF_MODEL)})", "{{model}}"),
                Query(f"min({series('agentprm_queue_limit_tokens')})", "limit", limit=True),
            ],
        ),
        Panel(
            "Queue: sequences",
            "Waiting sequences, all instances together.",
            [Query(total("agentprm_queue_sequences", OF_MODEL, by="model"), "{{model}}")],
        ),
        Panel(
            "Tokens a second by source",
            "Computed, or reused: their keys and values were held (prefix_cache), their scores known (score_cache).",
            [Query(rate(TOKENS, OF_MODEL, by="source"), "{{source}}")],
            stacked=True,
        ),
    ],
)  # fmt: skip

STAGES: Final = Row(
    "Stages of a request",
    [
        Panel(
            "Mean time by stage",
            "Stacked: where the time of an answered request goes.",
            [Query(mean("agentprm_stage_duration_seconds", OF_MODEL, by="stage"), "{{stage}}")],
            unit="s", stacked=True,
        ),
        Panel(
            "p95 by stage",
            "95 % of the answered requests spent at most this time in the stage.",
            [Query(quantile(0.95, "agentprm_stage_duration_seconds", OF_MODEL, by="stage"), "{{stage}}")],
            unit="s",
        ),
        Panel(
            "Forward",
            "One forward of one batch.",
            [Query(quantile(level, FORWARD, OF_MODEL), f"p{level * 100:.0f}") for level in (0.5, 0.95, 0.99)],
            unit="s",
        ),
    ],
)  # fmt: skip

BATCHES: Final = Row(
    "Batches",
    [
        Panel(
            "Tokens of a batch",
            "Tokens computed in one forward.",
            [Query(buckets("agentprm_batch_tokens", OF_MODEL), "{{le}}")],
            kind="heatmap", width=6,
        ),
        Panel(
            "Sequences of a batch",
            "Mean of a forward.",
            [Query(mean("agentprm_batch_sequences", OF_MODEL, by="model"), "{{model}}")],
            width=6,
        ),
        Panel(
            "Forwards a second",
            "Batches computed.",
            [Query(rate(f"{FORWARD}_count", OF_MODEL, by="model"), "{{model}}")],
            unit="ops", width=6,
        ),
        Panel(
            "Padding",
            "Share of the computed tokens that only filled rows; 0 for engines that pack.",
            [Query(share(PADDING, f"({PADDING} + {COMPUTED})"), "{{model}}")],
            unit="percentunit", width=6, highest=1,
        ),
    ],
)  # fmt: skip

PREFIX_CACHE: Final = Row(
    "Prefix cache",
    [
        Panel(
            "Keys and values held",
            "Full is well: what was used last stays. The limit is of each instance.",
            [
                Query(f"max by (model) ({series('agentprm_prefix_cache_bytes', OF_MODEL)})", "{{model}}"),
                Query(f"min({series('agentprm_prefix_cache_limit_bytes', OF_MODEL)})", "limit", limit=True),
            ],
            unit="bytes",
        ),
        Panel(
            "Evicted",
            "Keys and values dropped for others. Much of it while little is reused: the cache is too small.",
            [Query(rate("agentprm_prefix_cache_evicted_bytes_total", OF_MODEL, by="model"), "{{model}}")],
            unit="Bps",
        ),
        Panel(
            "Tokens reused",
            "Share of the tokens that needed no forward.",
            [
                Query(share(rate(TOKENS, OF_MODEL, f'source="{source}"'), rate(TOKENS, OF_MODEL)), source)
                for source in ("prefix_cache", "score_cache")
            ],
            unit="percentunit", stacked=True, highest=1,
        ),
    ],
)  # fmt: skip

SCORE_CACHE: Final = Row(
    "Score cache",
    [
        Panel(
            "Hit ratio by tier",
            "Redis is asked for what memory lacks. Lookups skipped while the breaker is open count as misses.",
            [Query(share(rate(LOOKUPS, 'result="hit"', by="tier"), rate(LOOKUPS, by="tier")), "{{tier}}")],
            unit="percentunit", highest=1,
        ),
        Panel(
            "Redis: latency",
            "Round trips; a read ends at the latest with its budget of time, nobody waits for a write.",
            [
                Query(quantile(level, REDIS, by="operation"), f"{{{{operation}}}} p{level * 100:.0f}")
                for level in (0.5, 0.99)
            ],
            unit="s",
        ),
        Panel(
            "Redis: errors",
            "Round trips that failed, probes included. Callers get the same scores, computed.",
            [Query(f"{ERRORS} > 0", "{{operation}} {{kind}}")],
            unit="ops", stacked=True,
        ),
        Panel(
            "Redis: breaker",
            "The worst instance. Open: Redis is not used.",
            [Query(f"max by (operation) ({series('agentprm_score_cache_breaker_state')})", "{{operation}}")],
            highest=2, words={0: "closed", 1: "half open", 2: "open"},
        ),
        Panel(
            "Redis: scores that wait to be written",
            "Over 16,384 an instance the oldest are dropped.",
            [
                Query(total("agentprm_score_cache_unwritten"), "waiting"),
                Query(rate("agentprm_score_cache_writes_total", 'result="dropped"'), "dropped a second"),
            ],
        ),
        Panel(
            "Scores held in memory",
            "In each process.",
            [Query(series("agentprm_score_cache_items"), "{{instance}}")],
        ),
    ],
)  # fmt: skip

PROCESS: Final = Row(
    "Process",
    [
        Panel(
            "Resident memory",
            "Weights, keys and values, and the rest.",
            [Query(series("process_resident_memory_bytes"), "{{instance}}")],
            unit="bytes",
        ),
        Panel(
            "CPU",
            "Cores in use.",
            [Query(rate("process_cpu_seconds_total", by="instance"), "{{instance}}")],
        ),
        Panel(
            "Load time of models",
            "From the checkpoint on disk to warmed up.",
            [Query(series("agentprm_model_load_duration_seconds", OF_MODEL), "{{instance}} {{model}}")],
            unit="s",
        ),
    ],
)  # fmt: skip

GPU: Final = Row(
    "GPU",
    [
        Panel(
            "GPU memory",
            "allocated: in tensors; reserved: taken from the device; total: what it has.",
            [Query(series("agentprm_gpu_memory_bytes"), "{{instance}} {{device}} {{kind}}")],
            unit="bytes", width=24,
        ),
    ],
    collapsed=True,
)  # fmt: skip

ENGINE: Final = Dashboard(
    "engine",
    "AgentPRM: engine",
    "Queue, stages, batches, tokens, prefix cache, score cache, process and GPU.",
    [QUEUE, STAGES, BATCHES, PREFIX_CACHE, SCORE_CACHE, PROCESS, GPU],
)
