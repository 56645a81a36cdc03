"""Overloads a server: it must keep its pace, refuse the rest and leak nothing.

    python -m tests.stress.overload --seconds 60 --times 3

The server is a real process with the bundled checkpoint, a short queue and no score cache. Its peak in a closed loop
and an open loop at a multiple of that rate take turns. The exit status is 1 if anything is wrong, with a sentence each.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agentprm import AgentPRMError, Client, Step, Trajectory
from benchmarks.harness.conditions import ROOT
from service.settings import CHECKPOINTS
from testbed.processes import START_SECONDS, Server, serve_agentprm
from tests.stress.generator import HANG_SECONDS, Orders, Report, Sample
from tests.stress.phases import Phase, Phases

SETTINGS: Final = {
    "AGENTPRM_MAX_QUEUE_TOKENS": "8192",
    "AGENTPRM_SCORE_CACHE_ITEMS": "0",
    "AGENTPRM_PREFIX_CACHE_BYTES": str(32 * 1024**2),  # full before the memory is first looked at
}
CALLERS: Final = 24
"""Callers of the closed loop; their requests just fit into the queue together."""
DEADLINE_SHARE: Final = 0.1
LEAST_PACE: Final = 0.9
SLACK: Final = 0.25, 0.25
"""Slack of the latency over limit / drain rate: a share for the time between forwards, and seconds for the running
batch and HTTP."""
MEMORY_SLACK: Final = 0.05, 20.0
"""Slack of the memory: a share and MB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    times: float
    queue_limit: float
    queued_after: float
    fresh: str
    """Why a request after the overload was not scored; empty if it was."""
    peak: Phases
    overload: Phases
    first_mb: float
    """The server's memory after the first peak."""

    @property
    def latency_bound(self) -> float:
        share, seconds = SLACK
        return self.queue_limit / self.overload.drain * (1 + share) + seconds

    @property
    def memory_bound(self) -> float:
        share, megabytes = MEMORY_SLACK
        return self.first_mb * (1 + share) + megabytes


def run(seconds: float, times: float, peak_seconds: float = 12.0, rounds: int = 3) -> Outcome:
    """Runs both loops for these seconds in ``rounds`` turns, so that a busy neighbour slows down both."""
    with serve_agentprm(CHECKPOINTS, "demo", SETTINGS) as server:
        host, port = urlsplit(server.url).hostname or "", urlsplit(server.url).port or 0
        peaks, overloads = list[Phase](), list[Phase]()
        for turn in range(rounds):
            closed = Orders(host, port, "closed", CALLERS, peak_seconds / rounds, seed=2 * turn)
            peaks.append(measure(server, closed))
            rate = times * max(1.0, Phases(peaks[-1:]).pace)
            opened = Orders(host, port, "open", rate, seconds / rounds, DEADLINE_SHARE, seed=2 * turn + 1)
            overloads.append(measure(server, opened))
        return Outcome(
            times,
            server.metric("agentprm_queue_limit_tokens"),
            server.metric("agentprm_queue_tokens"),
            why_not_scored(server),
            Phases(peaks),
            Phases(overloads),
            peaks[0].resident_mb,
        )


def measure(server: Server, orders: Orders) -> Phase:
    tokens, forward, cpu = computed_tokens(server), forward_seconds(server), server.cpu_seconds()
    report = generate(orders)
    return Phase(
        orders.seconds,
        max(sample.ended for sample in report.samples),
        report.samples,
        report.cpu_seconds,
        server.cpu_seconds() - cpu,
        computed_tokens(server) - tokens,
        forward_seconds(server) - forward,
        resident_mb(server.pid),
    )


def generate(orders: Orders) -> Report:
    command = [sys.executable, "-m", "tests.stress.generator"]
    given = json.dumps(asdict(orders))
    limit = orders.seconds + START_SECONDS + 2 * HANG_SECONDS
    done = subprocess.run(command, cwd=ROOT, input=given, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    printed = json.loads(done.stdout)
    return Report([Sample(*sample) for sample in printed["samples"]], printed["cpu_seconds"])


def computed_tokens(server: Server) -> float:
    return server.metric("agentprm_tokens_total", source="computed")


def forward_seconds(server: Server) -> float:
    return server.metric("agentprm_forward_duration_seconds_sum")


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def why_not_scored(server: Server) -> str:
    try:
        with Client(server.url, max_retries=0, timeout=HANG_SECONDS) as client:
            client.score(Trajectory("Craft a stick.", (Step("", "get 2 bamboo"),)))
    except AgentPRMError as error:
        return str(error) or type(error).__name__
    return ""


def broken(outcome: Outcome) -> list[str]:
    """Returns what is wrong on any machine, however slow or busy."""
    peak, samples = outcome.peak.statuses, outcome.overload.samples
    statuses = outcome.overload.statuses
    hung = statuses[0] + peak[0]
    strange = sorted({*statuses, *peak} - {0, 200, 429, 504})
    without_time = sum(sample.status == 429 and not sample.retry_after.isdigit() for sample in samples)
    undue = sum(sample.status == 504 and not sample.deadline_ms for sample in samples)
    complaints = {
        f"{hung} requests had no answer within {HANG_SECONDS:.0f} s": hung,
        f"answers with status {strange}: only 200, 429 and 504 are due": strange,
        f"{without_time} answers with 429 have no Retry-After in seconds": without_time,
        f"{undue} answers with 504 to requests without a deadline": undue,
        f"{outcome.queued_after:.0f} tokens are still queued when nobody waits": outcome.queued_after,
        f"a fresh request afterwards is not scored: {outcome.fresh}": outcome.fresh,
        "no request was scored under overload": not statuses[200],
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


def missed(outcome: Outcome) -> list[str]:
    """Returns what is wrong on a machine with a core for each side."""
    peak, overload = outcome.peak, outcome.overload
    kept, p99 = overload.pace / peak.pace, overload.latency(0.99)
    complaints = {
        f"only {kept:.0%} of the peak is scored under overload, {LEAST_PACE:.0%} is due": kept < LEAST_PACE,
        f"p99 of the scored requests is {p99:.3f} s, over the bound of {outcome.latency_bound:.3f} s": not (
            p99 <= outcome.latency_bound
        ),
        f"the server holds {overload.resident_mb:.0f} MB, over the bound of {outcome.memory_bound:.0f} MB": (
            overload.resident_mb > outcome.memory_bound
        ),
        f"only {overload.offered / peak.pace:.2f} times the peak was offered: the generator did not keep up": (
            overload.offered < 0.95 * outcome.times * peak.pace
        ),
    }
    return [complaint for complaint, wrong in complaints.items() if wrong]


def table(outcome: Outcome) -> str:
    peak, overload = outcome.peak, outcome.overload

    def both(what: str, form: str, values: tuple[float, float]) -> str:
        return f"{what:44} {values[0]:>12{form}} {values[1]:>12{form}}"

    lines = [
        f"{'':44} {'peak':>12} {f'{outcome.times:g}x overload':>12}",
        both("offered, requests/s", ".1f", (peak.offered, overload.offered)),
        both("scored (200), requests/s", ".1f", (peak.pace, overload.pace)),
        *(
            both(f"answers with {status or 'nothing (hung)'}", "d", (peak.statuses[status], overload.statuses[status]))
            for status in sorted({0, 200, 429, 504, *peak.statuses, *overload.statuses})
        ),
        both("latency of the scored, p50, s", ".3f", (peak.latency(0.5), overload.latency(0.5))),
        both("latency of the scored, p99, s", ".3f", (peak.latency(0.99), overload.latency(0.99))),
        both("computed, tokens per second of forward", ".0f", (peak.drain, overload.drain)),
        both("server's memory afterwards, MB", ".0f", (peak.resident_mb, overload.resident_mb)),
        both("cores used by the server", ".2f", (peak.server_cores, overload.server_cores)),
        both("cores used by the generator", ".2f", (peak.generator_cores, overload.generator_cores)),
        both("sent late by the generator, p99, s", ".3f", (peak.lateness(0.99), overload.lateness(0.99))),
        "",
        f"queue limit {outcome.queue_limit:.0f} tokens / drain rate = {outcome.queue_limit / overload.drain:.3f} s",
        f"with {SLACK[0]:.0%} and {SLACK[1]:g} s of slack p99 may be {outcome.latency_bound:.3f} s",
    ]
    return "\n".join(lines)


def competition() -> str:
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return (
        f"{cores} cores, load average {load:.2f} before the start. The server's event loop and its forwards can fill\n"
        "a core each and the generator needs a part of one more: with fewer free cores they compete for them."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Overloads a real server.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="how many times the peak is offered")
    options = parser.parse_args()
    print(competition())
    outcome = run(options.seconds, options.times)
    print(table(outcome))
    complaints = broken(outcome) + missed(outcome)
    for complaint in complaints:
        print(f"MISSED: {complaint}.")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
