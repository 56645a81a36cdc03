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
    return (
        table(SERVICE_COLUMNS, [_service_row(result, name) for result in results for name in result["servers"]]) + "\n"
    )


def mixed_section(mixed: Sequence[Result]) -> str:
    """Returns the latency of interactive requests on an idle service and during a flood."""
    columns = ("server", "idle p50 / p95 ms", "beside the flood p50 / p95 ms", "p95 ratio", "bulk items / s meanwhile")
    rows = [
        [
            result["server"],
            p50_and_p95(result["idle_ms"]),
            p50_and_p95(result["loaded_ms"]),
            f"{result['p95_ratio']:.2f}",
            f"{result['bulk_items_per_second']:.1f}",
        ]
        for result in mixed
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
