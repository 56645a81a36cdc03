from typing import Any

from benchmarks.report import as_markdown
from benchmarks.score_cache.report import cache_section
from benchmarks.score_cache.suite import differing

WALL = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "samples": 9}
RATIO = {"median": 5.0, "least": 4.0, "most": 6.0}
EQUAL = {"max_diff": 1e-7, "equal": True}


def document() -> dict[str, Any]:
    """A result of ``bench_cache`` with invented numbers."""
    return {
        "redis": "Valkey server v=9.1.2",
        "replica": [replica_result()],
        "repeat": repeat_result(),
        "hits": [hit_result()],
        "hang": hang_result(),
    }


def replica_result() -> dict[str, Any]:
    replicas = ("first", "joined", "alone")
    tokens = {"computed": 1234.0, "prefix_cache": 5.0, "score_cache": 6.0}
    return {
        "model": "demo",
        "case": "TextCraft as sent",
        "tokens": {name: [tokens] for name in replicas},
        "cpu_seconds": {name: [0.25] for name in replicas},
        "computed_share": 0.012,
        "alone_over_joined": RATIO,
        **EQUAL,
    }


def repeat_result() -> dict[str, Any]:
    memory = {
        "first_cpu_ms_by_round": [40.0, 42.0],
        "again_cpu_ms_by_round": [0.5, 1.5],
        "first_over_again": RATIO,
        "first_wall_ms": WALL,
        "again_wall_ms": WALL,
        "computed_again": 0.0,
    }
    return {
        "case": "P=256 N=4, model tiny",
        "rankings_a_round": 2,
        "times": 50,
        "configurations": {"memory": memory},
        **EQUAL,
    }


def hit_result() -> dict[str, Any]:
    server = {"requests_per_cpu_second": 2000.4, "requests_per_second": 1500.0, "wall_ms": WALL}
    return {
        "case": "P=256 N=4",
        "concurrency": 8,
        "body_bytes": 2082,
        "reply_bytes": 596,
        "servers": {"agentprm": server, "echo": server},
        "over_echo": RATIO,
        **EQUAL,
    }


def hang_result() -> dict[str, Any]:
    return {
        "case": "one caller",
        "budget_ms": 25.0,
        "phases": [{"phase": "it hangs, breaker open", "wall_ms": WALL, "redis_asked": 0.0}],
        "requests_until_open": [3, 3, 4],
        "added_until_open_ms": [25.12, 31.0, 26.0],
        "seconds_until_closed": [0.75, 0.75],
    }


def test_the_report_shows_what_was_measured() -> None:
    text = cache_section(document())
    for line in (
        "computed 1.2% of the tokens",
        "| joined | 1,234 | 5 | 6 | 0.25 |",
        "| memory | 41.0 | 1.00 | 5.00 (4.00-6.00) |",
        "| 8 | agentprm | 2000 | 1500 | 1.00 / 2.00 / 3.00 (n=9) | 5.00 (4.00-6.00) |",
        "opened after 3-4 requests, which took 26.0 ms longer than usual, at most 31.0 (budget: 25 ms).",
        "breakers had closed 0.8 s after",
        "| it hangs, breaker open | 1.0 / 2.0 / 3.0 (n=9) | 0% |",
    ):
        assert line in text
    assert "DIFFER" not in text


def test_a_cached_score_that_is_wrong_is_named() -> None:
    result = document()
    assert not differing(result)
    result["hits"][0] |= {"equal": False, "max_diff": 0.5}
    assert differing(result) == ["P=256 N=4"]
    assert "DIFFER (max diff 5.0e-01)" in cache_section(result)


def test_the_cache_has_its_place_in_the_results() -> None:
    conditions = {
        "cpu": "a CPU",
        "cores": 2,
        "torch_threads": 1,
        "load_average": [0.5, 0.5, 0.5],
        "torch": "2",
        "transformers": "5",
        "python": "3.11",
        "commit": "0" * 40,
        "uncommitted_changes": False,
        "date": "today",
        "sizes": "quick",
        "rounds": 3,
    }
    text = as_markdown([], None, {"conditions": conditions, **document()})
    assert text.index("## Score cache") < text.index("a CPU, 2 cores") < text.index("### A replica joins")
