from itertools import pairwise

import pytest

from benchmarks.workloads import tokens
from benchmarks.workloads.models import VOCABULARY
from benchmarks.workloads.requests import as_call, bulk_load, rank_load, step_load
from benchmarks.workloads.textcraft import textcraft
from benchmarks.workloads.tokens import CANDIDATE, STEP, Workload
from model_store.text.renderer import Renderer
from training.data.tokenizer import TEMPLATE, build_tokenizer


def small_workloads() -> list[Workload]:
    return [
        tokens.rank(32, 3),
        tokens.grow(4, 2),
        tokens.all_steps(40, 5),
        tokens.unrelated(10, 5, 20, 4, calls=2),
        tokens.agent_loop(3),
    ]


def test_a_workload_is_the_same_every_time() -> None:
    assert small_workloads() == small_workloads()


@pytest.mark.parametrize("workload", [*small_workloads(), *tokens.quick()], ids=lambda workload: workload.case)
def test_calls_are_well_formed(workload: Workload) -> None:
    for call in (*workload.calls, *(workload.naive or ()), *(workload.held or ())):
        assert len(call.token_ids) == len(call.reads)
        for ids, reads in zip(call.token_ids, call.reads, strict=True):
            assert all(0 <= token < VOCABULARY for token in ids)
            assert reads
            assert all(0 <= position < len(ids) for position in reads)


def test_candidates_share_their_history_and_a_warm_engine_holds_it() -> None:
    workload = tokens.rank(32, 3)
    (call,), held = workload.calls, workload.held
    assert held is not None
    assert {tuple(ids[:32]) for ids in call.token_ids} == {tuple(held[0].token_ids[0])}
    assert [len(ids) for ids in call.token_ids] == [32 + CANDIDATE] * 3
    assert len({tuple(ids) for ids in call.token_ids}) == 3


def test_a_trajectory_grows_from_its_own_steps() -> None:
    calls = tokens.grow(4, 2).calls
    assert [len(call.token_ids[0]) for call in calls] == [STEP, 2 * STEP, 3 * STEP, 4 * STEP]
    for before, after in pairwise(calls):
        assert [ids[: len(before.token_ids[0])] for ids in after.token_ids] == before.token_ids


def test_the_naive_way_to_all_steps_asks_for_the_same_scores() -> None:
    workload = tokens.all_steps(40, 5)
    assert workload.naive is not None
    (whole,), (naive,) = workload.calls, workload.naive
    assert [whole.token_ids[0][: end + 1] for end in whole.reads[0]] == naive.token_ids
    assert (whole.items, naive.items) == (5, 5)
    assert workload.tokens == 8 + 16 + 24 + 32 + 40


def test_the_next_step_of_the_agent_loop_continues_a_candidate() -> None:
    calls = tokens.agent_loop(3).calls
    for before, after in pairwise(calls):
        assert after.token_ids[0][: len(before.token_ids[0])] in before.token_ids


def test_textcraft_traffic_has_eight_proposals_a_step_and_a_case_of_the_distinct_ones() -> None:
    sent, distinct = textcraft(1)
    assert textcraft(1) == [sent, distinct]
    assert {len(call.token_ids) for call in sent.calls} == {8}
    for eight, few in zip(sent.calls, distinct.calls, strict=True):
        assert {tuple(ids) for ids in eight.token_ids} == {tuple(ids) for ids in few.token_ids}
        assert len(few.token_ids) <= 8


def test_requests_have_the_tokens_they_say() -> None:
    renderer = Renderer(build_tokenizer([" ".join(f"w{number}" for number in range(8000))]), TEMPLATE)
    rank = rank_load(2, history=32, candidates=3, seed="a")
    call = as_call(renderer, rank.path, rank.bodies)
    assert [len(ids) for ids in call.token_ids] == [32 + CANDIDATE] * 6
    assert call.items == rank.items == 6
    bulk = bulk_load(1, tokens=100, steps=4, seed="a")
    call = as_call(renderer, bulk.path, bulk.bodies)
    assert (len(call.token_ids[0]), call.items) == (100, 4)
    assert step_load(3, 30, 60, "a") == step_load(3, 30, 60, "a") != step_load(3, 30, 60, "b")
