"""Tables of the service benchmark."""

from collections.abc import Sequence
from typing import Final

from benchmarks.harness.tables import Result, milliseconds, p50_and_p95, ratio, table

SERVICE_COLUMNS: Final = (
    "workload",
    "at once",
    "server",
    "items / CPU s",
    "items / s",
    "ms p50 / p95 / p99",
    "over plain",
    "over bare engine",
    "refused",
)


def service_section(results: Sequence[Result]) -> str:
    return table(SERVICE_COLUMNS, [_service_row(one, server) for one in results for server in one["servers"]]) + "\n"


def mixed_section(mixed: Sequence[Result]) -> str:
    """Latency of interactive requests, idle and beside the flood."""
    columns = ("server", "idle p50 / p95 ms", "beside the flood p50 / p95 ms", "p95 ratio", "bulk items / s meanwhile")
    rows = [
        [
            one["server"],
            p50_and_p95(one["idle_ms"]),
            p50_and_p95(one["loaded_ms"]),
            f"{one['p95_ratio']:.2f}",
            f"{one['bulk_items_per_second']:.1f}",
        ]
        for one in mixed
    ]
    return f"### An interactive /rank_actions beside a /score_trajectory flood\n\n{table(columns, rows)}\n"


def _service_row(result: Result, name: str) -> list[str]:
    server = result["servers"][name]
    return [
        f"{result['workload']} {result['case']}",
        str(result["concurrency"]),
        name.replace("_", " "),
        f"{server['items_per_cpu_second']:.1f}",
        f"{server['items_per_second']:.1f}",
        milliseconds(server["wall_ms"]) if "wall_ms" in server else "",
        ratio(server["over_plain"]),
        ratio(server["over_bare_engine"]),
        str(server.get("refused", "")),
    ]
