"""Tables of the score cache benchmark."""

from collections.abc import Sequence
from statistics import fmean, median

from benchmarks.harness.tables import Result, equality, milliseconds, ratio, spread, table


def cache_section(document: Result) -> str:
    sections = [
        f"Redis: {document['redis']}.\n",
        *map(replica_section, document["replica"]),
        repeat_section(document["repeat"]),
        hits_section(document["hits"]),
        hang_section(document["hang"]),
    ]
    return "\n".join(sections)


def replica_section(result: Result) -> str:
    """Returns the tokens of each replica by source, and its CPU seconds."""
    columns = ("replica", "tokens computed", "from the prefix cache", "from the score cache", "CPU s")
    rows = [
        [who, *(f"{count:,.0f}" for count in tokens.values()), f"{cost:.2f}"]
        for who, played in result["tokens"].items()
        for tokens, cost in zip(played, result["cpu_seconds"][who], strict=True)
    ]
    facts = (
        f"The one that joined computed {result['computed_share']:.1%} of the tokens that one alone computed "
        f"(aim: at most 5 %). CPU, alone over joined: {ratio(result['alone_over_joined'])}. {equality(result)}\n"
    )
    return f"### A replica joins: {result['case']}, model {result['model']}\n\n{facts}\n{table(columns, rows)}\n"


def repeat_section(result: Result) -> str:
    columns = (
        "scores lie in",
        "first: CPU ms",
        "again: CPU ms",
        "first over again",
        "first: ms p50 / p95 / p99",
        "again: ms p50 / p95 / p99",
        "tokens computed again",
    )
    rows = [
        [
            name,
            f"{fmean(costs['first_cpu_ms_by_round']):.1f}",
            f"{fmean(costs['again_cpu_ms_by_round']):.2f}",
            ratio(costs["first_over_again"]),
            milliseconds(costs["first_wall_ms"]),
            milliseconds(costs["again_wall_ms"]),
            f"{costs['computed_again']:,.0f}",
        ]
        for name, costs in result["configurations"].items()
    ]
    facts = (
        f"{result['rankings_a_round']} rankings a round, each then {result['times']} times again "
        f"(aim: first over again at least 20). {equality(result)}\n"
    )
    return f"### A repeated /rank_actions: {result['case']}\n\n{facts}\n{table(columns, rows)}\n"


def hits_section(results: Sequence[Result]) -> str:
    columns = ("case", "at once", "server", "requests / CPU s", "requests / s", "ms p50 / p95 / p99", "CPU over echo")
    rows = [
        [
            f"{result['case']}, {result['body_bytes']:,} bytes in, {result['reply_bytes']:,} out",
            str(result["concurrency"]),
            name,
            f"{server['requests_per_cpu_second']:.0f}",
            f"{server['requests_per_second']:.0f}",
            milliseconds(server["wall_ms"], 2),
            ratio(result["over_echo"]) if name == "agentprm" else "",
        ]
        for result in results
        for name, server in result["servers"].items()
    ]
    worst = max(results, key=lambda result: float(result["max_diff"]))
    return f"### Hits beside a plain FastAPI app\n\n{equality(worst)}\n\n{table(columns, rows)}\n"


def hang_section(result: Result) -> str:
    columns = ("phase", "ms p50 / p95 / p99", "scores that Redis was asked for")
    rows = [
        [phase["phase"], milliseconds(phase["wall_ms"]), f"{phase['redis_asked']:.0%}"] for phase in result["phases"]
    ]
    added = result["added_until_open_ms"]
    facts = (
        f"Each time the breaker opened after {spread(result['requests_until_open'])} requests, which took "
        f"{median(added):.1f} ms longer than usual, at most {max(added):.1f} (budget: {result['budget_ms']:.0f} ms). "
        f"Both breakers had closed {spread(result['seconds_until_closed'], 1)} s after Redis went on.\n"
    )
    return f"### While Redis hangs: {result['case']}\n\n{facts}\n{table(columns, rows)}\n"
