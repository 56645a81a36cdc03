"""Several processes score as one does, share their work, and end with whoever holds them."""

import gc
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import Gemma2Config, Qwen2Config

from model_store.errors import CheckpointCorrupt, CheckpointError
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint, Store
from model_store.network.model import new_model, save_model
from service.engine.contract import DeviceLost
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import load_engine
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.engine.workers.worker import WorkerConfig
from service.models.load import LoadedModel, load_checkpoint, load_models
from service.settings import CHECKPOINTS, Settings
from tests.service.engine.sharp_models import SHAPE

VOCABULARY = 300
BUDGET = 400 * 1000
"""Bytes for a few hundred tokens of the bundled checkpoint, so that much is evicted."""
PATIENCE = 60.0


def demo() -> Checkpoint:
    return Store(CHECKPOINTS).resolve("demo")


def job(
    *devices: str,
    checkpoint: Checkpoint | None = None,
    prefix_cache_bytes: int = BUDGET,
    weights: Literal["auto", "int8"] = "auto",
) -> WorkerConfig:
    return WorkerConfig(
        checkpoint=checkpoint or demo(),
        devices=devices,
        dtype="float32",
        weights=weights,
        prefix_cache_bytes=prefix_cache_bytes,
        cpu_threads=1,
        log_level="error",
        log_format="text",
    )


def spread(*workers: tuple[str, ...], prefix_cache_bytes: int = BUDGET) -> SpreadEngine:
    groups = [WorkerGroup(job(*devices, prefix_cache_bytes=prefix_cache_bytes)) for devices in workers]
    return SpreadEngine(groups, prefix_cache_bytes=prefix_cache_bytes)


@pytest.fixture(scope="module")
def alone() -> PrefixEngine:
    engine = load_engine(demo(), "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    assert isinstance(engine, PrefixEngine)
    return engine


@pytest.fixture(scope="module", params=[(("cpu",), ("cpu",)), (("cpu", "cpu"),)], ids=["two workers", "split layers"])
def engine(request: pytest.FixtureRequest) -> Iterator[SpreadEngine]:
    workers: tuple[tuple[str, ...], ...] = request.param
    yield spread(*workers)
    gc.collect()


def batches(seed: int, count: int) -> Iterator[list[list[int]]]:
    """Sequences that grow from earlier ones, as trajectories and their candidates do."""
    generator = random.Random(seed)
    grown: list[list[int]] = [[]]
    for _ in range(count):
        batch = []
        for _ in range(generator.randint(1, 5)):
            start = generator.choice(grown[-8:])
            more = [generator.randrange(VOCABULARY) for _ in range(generator.randint(1, 60))]
            batch.append((start + more)[:400])
        grown += batch
        yield batch


def test_several_processes_give_the_scores_that_one_gives(engine: SpreadEngine, alone: PrefixEngine) -> None:
    for batch in batches(seed=1, count=30):
        reads = [range(len(ids)) for ids in batch]
        for theirs, ours in zip(engine.score(batch, reads), alone.score(batch, reads), strict=True):
            assert theirs.raw == pytest.approx(ours.raw, abs=1e-5)
    assert engine.evicted_bytes > 0, "nothing was computed again"


def test_what_a_sequence_will_cost_is_known_without_asking(engine: SpreadEngine) -> None:
    """After evictions too: the tree that is kept here is that of the workers."""
    told = []
    for [first, *_] in batches(seed=2, count=40):
        [cost] = engine.extend_lens([first])
        [scored] = engine.score([first], [[len(first) - 1]])
        assert scored.computed == cost
        told.append(cost < len(first))
    assert any(told), "nothing was found again"
    assert not all(told)


def test_a_failed_batch_is_an_error_with_its_cause_and_the_next_one_scores(
    engine: SpreadEngine, alone: PrefixEngine
) -> None:
    with pytest.raises(RuntimeError, match="index out of range"):
        engine.score([[1, 2, 3], [4, 5, 6]], [[2], [3]])
    [after] = engine.score([[1, 2, 3]], [[2]])
    assert after.raw == pytest.approx(alone.score([[1, 2, 3]], [[2]])[0].raw, abs=1e-5)
    assert engine.extend_lens([[1, 2, 3, 4]]) == [1]


def test_strangers_go_to_different_workers_and_relatives_to_the_same() -> None:
    engine = spread(("cpu",), ("cpu",))
    engine.score([[1] * 50, [2] * 50], [[0], [0]])
    assert [held.match([1] * 50) + held.match([2] * 50) for held in engine.held] == [50, 50]
    engine.score([[1] * 50 + [3], [1] * 50 + [4], [1] * 50 + [5], [2] * 50 + [3]], [[0]] * 4)
    by_worker = [sorted(held.match([first] * 50 + [last]) for first, last in ((1, 5), (2, 3))) for held in engine.held]
    assert by_worker == [[0, 51], [0, 51]]


def test_each_of_the_split_layers_holds_its_part_of_the_keys_and_values(alone: PrefixEngine) -> None:
    engine = spread(("cpu", "cpu"))
    alone.prefix_cache.clear()
    for one in (engine, alone):
        one.score([[7] * 100], [[0]])
    scores = 4 * 100  # the raw score at each token is held by all
    assert engine.used_bytes - scores == (alone.prefix_cache.used_bytes - scores) // 2


def test_a_worker_that_ends_is_a_lost_device() -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    engine = spread(("cpu", "cpu"))
    victim = (set(multiprocessing.active_children()) - before).pop()
    victim.kill()
    victim.join(PATIENCE)
    for _ in range(2):
        with pytest.raises(DeviceLost, match=r"the worker on cpu\+cpu has ended"):
            engine.score([[1, 2]], [[1]])


def test_the_processes_end_with_whoever_holds_them() -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    engine = spread(("cpu",))
    [process] = set(multiprocessing.active_children()) - before
    assert process.is_alive()
    del engine
    gc.collect()
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_a_worker_that_is_given_up_while_it_loads_leaves_no_process() -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    group = WorkerGroup(job("cpu", "cpu"))
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del group
    gc.collect()
    for process in started:
        process.join(PATIENCE)
        assert not process.is_alive()


def test_a_checkpoint_that_cannot_be_loaded_is_refused_in_the_same_words(tmp_path: Path) -> None:
    whole = demo()
    for file in whole.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    broken = replace(whole, path=tmp_path)
    with pytest.raises(CheckpointError) as here:
        load_checkpoint(broken, Settings(device="cpu"))
    with pytest.raises(CheckpointError) as there:
        load_checkpoint(broken, Settings(device="cpu,cpu"))
    assert type(there.value) is type(here.value) is CheckpointCorrupt
    assert str(there.value) == str(here.value)


def test_heads_that_cannot_be_split_evenly_are_refused(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=50, hidden_size=12, num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=1
    )
    save_model(new_model(config, seed=0), tmp_path)
    odd = Checkpoint(tmp_path, replace(demo().manifest, context_length=64))
    with pytest.raises(CheckpointError, match="3 key/value heads cannot be split evenly over 2 devices"):
        WorkerGroup(job("cpu", "cpu", checkpoint=odd)).loaded()


def test_a_model_is_where_its_alias_is_placed() -> None:
    [placed] = load_models(Settings(device="cpu", placement={"demo": "cpu,cpu"}, cpu_threads=1))
    [usual] = load_models(Settings(device="cpu", placement={"other": "cpu,cpu"}, cpu_threads=1))
    assert (placed.device, usual.device) == ("cpu,cpu", "cpu")
    assert torch.get_num_threads() == 1


def test_weights_of_fewer_bits_are_told_with_their_error_and_not_split() -> None:
    [here] = load_models(Settings(device="cpu", weights="int8", cpu_threads=1))
    [spread_out] = load_models(Settings(device="cpu,cpu", weights="int8", cpu_threads=1))
    assert isinstance(here, LoadedModel)
    assert isinstance(spread_out, LoadedModel)
    assert spread_out.weights_error == here.weights_error is not None
    assert spread_out.dtype == here.dtype
    with pytest.raises(CheckpointError, match="weights of fewer bits cannot be split over devices"):
        WorkerGroup(job("cpu", "cpu", weights="int8")).loaded()


def test_a_head_of_tied_embeddings_reads_them_whole(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
        intermediate_size=32, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    save_model(new_model(config, seed=0), tmp_path)
    recipe = ScoreRecipe(head="token_pair", activation="softmax", read="action_end", tokens=(3, 40))
    tied = Checkpoint(tmp_path, replace(demo().manifest, score=recipe, context_length=64))
    engine = SpreadEngine([WorkerGroup(job("cpu", "cpu", checkpoint=tied))], prefix_cache_bytes=BUDGET)
    expected = load_engine(tied, "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    call = [[1, 2, 3, 4, 5, 6, 7]], [range(7)]
    assert engine.score(*call)[0].raw == pytest.approx(expected.score(*call)[0].raw, abs=1e-5)


def test_workers_that_share_no_prefixes_are_reckoned_to_compute_everything(tmp_path: Path) -> None:
    save_model(new_model(Gemma2Config(**SHAPE), seed=0), tmp_path)
    capped = Checkpoint(tmp_path, replace(demo().manifest, context_length=64))
    engine = SpreadEngine([WorkerGroup(job("cpu", checkpoint=capped))], prefix_cache_bytes=BUDGET)
    batch = [[1, 2, 3, 4], [1, 2, 3, 5]]
    for _ in range(2):
        assert engine.extend_lens(batch) == [scored.computed for scored in engine.score(batch, [[3], [3]])] == [4, 4]
    assert not engine.held[0].root.children, "what nobody holds would stay for ever"
