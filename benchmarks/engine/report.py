"""Tables of the engine benchmark."""

from typing import Final

from benchmarks.harness.tables import Result, milliseconds, ratio, table

ENGINE_COLUMNS: Final = (
    "variant",
    "items / CPU s",
    "ms p50 / p95 / p99",
    "computed / asked",
    "over padded",
    "over one by one",
    "of the limit",
    "max diff",
    "last step / step 3",
)


def engine_section(result: Result) -> str:
    """Returns the table of one workload."""
    title = f"### {result['workload']} {result['case']}, model {result['model']}\n"
    if "left_out" in result:
        return f"{title}\nLeft out: {result['left_out']}.\n"
    facts = (
        f"{result['items']} scores in {result['calls']} calls, {result['asked_tokens']:,} tokens asked; "
        f"matrix products peak at {result['peak_gflops']:.0f} GFLOP/s; "
        f"scores {'equal' if result['equal'] else 'DIFFER'} (tolerance {result['tolerance']:.1e}).\n"
    )
    rows = [_engine_row(name, variant) for name, variant in result["variants"].items()]
    return f"{title}\n{facts}\n{table(ENGINE_COLUMNS, rows)}\n"


def _engine_row(name: str, variant: Result) -> list[str]:
    growth = variant.get("last_over_third")
    return [
        name.replace("_", " "),
        f"{variant['items_per_cpu_second']:.1f}",
        milliseconds(variant["wall_ms"]),
        f"{variant['computed_share']:.3f}",
        ratio(variant["over_padded"]),
        ratio(variant["over_one_by_one"]),
        f"{variant['of_limit']:.0%}",
        f"{variant['max_diff']:.1e}",
        ratio(growth) if growth else "",
    ]
