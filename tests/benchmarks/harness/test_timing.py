from itertools import pairwise

import pytest

from benchmarks.engine.plots import candidate_lines, step_lines, widest_history
from benchmarks.engine.speed import build_engines
from benchmarks.harness.timing import Answer, Variant, growth, measure, percentile, ratios
from benchmarks.workloads.models import judge_config, matrix_parameters, random_model
from benchmarks.workloads.tokens import Call, Workload, agent_loop, all_steps, last_reads


def test_a_ratio_divides_within_a_round() -> None:
    assert ratios([10, 40, 9], [1, 2, 3]) == (10, 3, 20)


def test_growth_compares_two_calls_of_each_round() -> None:
    assert growth([[1, 2, 6], [1, 4, 4], [1, 1, 2]], late=-1, early=1) == (2, 1, 3)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [51, 96, 100]
    assert percentile([7.0], 0.99) == 7


def test_variants_take_turns_and_are_prepared_before_every_call() -> None:
    events: list[str] = []

    def variant(name: str) -> Variant:
        def score(call: Call) -> Answer:
            events.append(name)
            return Answer([float(len(call.token_ids[0]))], call.tokens)

        return Variant(name, calls, score, lambda index: events.append(f"{name}{index}"))

    calls = [last_reads([[1] * length]) for length in (2, 3)]
    timings = measure([variant("a"), variant("b")], rounds=2)
    assert events[:4] == ["a0", "a", "a1", "a"]
    turns = [name for before, name in pairwise(["", *(event[0] for event in events)]) if before != name]
    assert turns == ["a", "b", "a"]  # the second round starts with b
    for timing in timings.values():
        assert (timing.raw, timing.computed) == ([2, 3], 5)
        assert [len(calls) for calls in timing.cpu] == [2, 2]


def test_matrix_parameters_leave_out_embeddings_and_norms() -> None:
    attention, network = 64 * 64 * 2 + 64 * 32 * 2, 3 * 64 * 176
    assert matrix_parameters(random_model(judge_config())) == 2 * (attention + network)


@pytest.mark.parametrize("workload", [agent_loop(2), all_steps(60, 4)], ids=lambda workload: workload.name)
def test_every_variant_answers_alike(workload: Workload) -> None:
    answers = {
        variant.name: [score for call in variant.calls for score in variant.score(call).raw]
        for variant in build_engines(random_model(judge_config())).variants(workload)
    }
    reference = answers["one_by_one"]
    for name, scores in answers.items():
        assert scores == pytest.approx(reference, abs=2e-5), name


def test_the_plots_take_one_trajectory_and_the_longest_common_history() -> None:
    def result(workload: str, case: str, *milliseconds: float) -> dict[str, object]:
        seconds = [value / 1000 for value in milliseconds]
        variants = {"cold": {"cpu_seconds": sum(seconds), "cpu_seconds_by_call": seconds}}
        return {"workload": workload, "case": case, "variants": variants}

    results = [
        result("W1", "P=512 N=16", 5),
        result("W1", "P=256 N=16", 3),
        result("W1", "P=256 N=4", 2),
        result("W2", "T=2 B=1", 1, 4),
        result("W2", "T=2 B=8", 9, 9),
    ]
    assert widest_history(results) == 256
    assert candidate_lines(results, 256) == {"cold": ([4, 16], [2, 3])}
    assert step_lines(results) == {"cold": ([1, 2], [1, 4])}
