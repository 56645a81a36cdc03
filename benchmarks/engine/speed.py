"""The prefix engine against two baselines, in one process and on one thread.

padded       a call's sequences in one batch, padded on the right under an attention mask, as reward servers do
one_by_one   each sequence alone, without padding or sharing; the stronger baseline on a CPU, and the reference scores
plain_pass   the whole trajectory in one pass without an engine (W3 only)
cold         the prefix engine with an empty cache before each call
warm         the prefix engine with the history cached (W1), or with what earlier calls left in the cache (W2, W5)
"""

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from benchmarks.harness.timing import (
    Answer,
    Ratio,
    Timings,
    Variant,
    growth,
    measure,
    measure_peak,
    percentiles,
    ratios,
)
from benchmarks.workloads.models import CONTEXT, Measured
from benchmarks.workloads.tokens import Call, Workload
from model_store.network.model import RewardModel, score_rows
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import choose_engine

logger = logging.getLogger(__name__)

CACHE_BYTES: Final = 4 * 2**30
TOLERANCE: Final = 1e-5
BASELINES: Final = ("padded", "one_by_one")
EARLY_STEP: Final = 3


@dataclass(frozen=True, slots=True)
class Engines:
    """The same weights twice: ``plain`` for the baselines and, with other attention, in the prefix engine."""

    plain: RewardModel
    engine: PrefixEngine

    def variants(self, workload: Workload) -> list[Variant]:
        """Returns every way to score a workload."""
        naive = workload.naive or workload.calls
        variants = [Variant("padded", naive, self._padded), Variant("one_by_one", naive, self._one_by_one)]
        if workload.naive:
            variants.append(Variant("plain_pass", workload.calls, self._one_by_one))
        variants.append(Variant("cold", workload.calls, self._prefix, self._forget))
        if workload.held:
            variants.append(Variant("warm", workload.calls, self._prefix, self._hold(workload.held)))
        if workload.grows:
            variants.append(Variant("warm", workload.calls, self._prefix, self._forget_at_start))
        return variants

    @torch.inference_mode()
    def _padded(self, call: Call) -> Answer:
        rows = [torch.tensor(ids) for ids in call.token_ids]
        token_ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask_BT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        raw_BT = self.plain(token_ids_BT, attention_mask=mask_BT)
        scores = [raw_BT[row, reads].tolist() for row, reads in enumerate(call.reads)]
        return Answer([score for row in scores for score in row], token_ids_BT.numel())

    def _one_by_one(self, call: Call) -> Answer:
        rows = score_rows(self.plain, call.token_ids, call.reads, row_tokens=1)
        return Answer([score for row in rows for score in row], call.tokens)

    def _prefix(self, call: Call) -> Answer:
        scored = self.engine.score(call.token_ids, call.reads)
        return Answer([score for row in scored for score in row.raw], sum(row.computed for row in scored))

    def _forget(self, _: int = 0) -> None:
        self.engine.prefix_cache.clear()

    def _forget_at_start(self, index: int) -> None:
        if index == 0:
            self._forget()

    def _hold(self, held: Sequence[Call]) -> Callable[[int], None]:
        def prepare(index: int) -> None:
            self._forget()
            self._prefix(held[index])

        return prepare


def build_engines(model: RewardModel) -> Engines:
    """Copies the model, so that the baselines keep its plain attention.

    Raises:
        TypeError: the load probe chose another engine than the prefix engine.
    """
    engine = choose_engine(copy.deepcopy(model), prefix_cache_bytes=CACHE_BYTES, context_length=CONTEXT)
    if not isinstance(engine, PrefixEngine):
        raise TypeError("the load probe chose the padded engine, so there is nothing to compare")
    return Engines(model, engine)


def bench_model(
    measured: Measured, workloads: Sequence[Workload], rounds: int, limit: float, show: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Measures each workload, except those whose baseline takes more than ``limit`` seconds a pass."""
    engines, peak = build_engines(measured.model), measure_peak()
    results = []
    for workload in workloads:
        seconds = 2 * measured.parameters * workload.tokens / peak
        if seconds > limit:
            logger.warning("%s %s %s left out: %.0f s a pass", measured.name, workload.name, workload.case, seconds)
            results.append({**_name(measured, workload), "left_out": f"a baseline pass takes at least {seconds:.0f} s"})
            continue
        results.append(_bench(measured, engines, workload, rounds))
        show(results[-1])
    return results


def _bench(measured: Measured, engines: Engines, workload: Workload, rounds: int) -> dict[str, Any]:
    before = measure_peak()
    timings = measure(engines.variants(workload), rounds)
    peak = max(before, measure_peak())
    reference = torch.tensor(timings["one_by_one"].raw)
    variants = {name: _describe(timings, name, workload, 2 * measured.parameters / peak, reference) for name in timings}
    spread = float(reference.std()) if len(reference) > 1 else 0.0
    tolerance = TOLERANCE * max(1.0, spread)
    return {
        **_name(measured, workload),
        "items": workload.items,
        "calls": len(workload.calls),
        "asked_tokens": workload.tokens,
        "rounds": rounds,
        "peak_gflops": peak / 1e9,
        "matrix_parameters": measured.parameters,
        "score_std": spread,
        "tolerance": tolerance,
        "equal": all(variants[name]["max_diff"] <= tolerance for name in variants if name in ("cold", "warm")),
        "variants": variants,
    }


def _name(measured: Measured, workload: Workload) -> dict[str, Any]:
    return {"model": measured.name, "workload": workload.name, "case": workload.case}


def _describe(
    timings: dict[str, Timings], name: str, workload: Workload, limit_per_token: float, reference: torch.Tensor
) -> dict[str, Any]:
    timing = timings[name]
    cpu = sum(timing.rounds) / len(timing.rounds)
    described = {
        "cpu_seconds": cpu,
        "cpu_seconds_by_round": timing.rounds,
        "cpu_seconds_by_call": [sum(call) / len(call) for call in zip(*timing.cpu, strict=True)],
        "items_per_cpu_second": workload.items / cpu,
        "items_per_second": workload.items / (sum(timing.wall) / len(timing.wall) * len(timing.cpu[0])),
        "wall_ms": percentiles([1000 * seconds for seconds in timing.wall]),
        "computed_tokens": timing.computed,
        "computed_share": timing.computed / workload.tokens,
        "of_limit": timing.computed * limit_per_token / cpu,
        "max_diff": float((torch.tensor(timing.raw) - reference).abs().max()),
        **{f"over_{base}": _as_json(ratios(timings[base].rounds, timing.rounds)) for base in BASELINES},
    }
    if workload.grows and len(timing.cpu[0]) > EARLY_STEP:
        described["last_over_third"] = _as_json(growth(timing.cpu, -1, EARLY_STEP - 1))
    return described


def _as_json(ratio: Ratio) -> dict[str, float]:
    return ratio._asdict()
