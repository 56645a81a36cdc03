"""Workers in several processes: same scores as in one, a balanced load, failures, and the end of the processes."""

import gc
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Qwen2Config

from model_store.errors import CheckpointCorrupt, CheckpointError
from model_store.format.recipe import ScoreRecipe
from model_store.format.store import Checkpoint
from model_store.network.model import new_model, save_model
from service.engine.node_bytes import NODE_BYTES, TOKEN_ID_BYTES
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import load_engine
from service.engine.workers.group import WorkerGroup
from service.engine.workers.spread_engine import SpreadEngine
from service.models.load import LoadedModel, load_checkpoint, load_models
from service.settings import Settings
from tests.service.engine.sharp_models import SHAPE
from tests.service.engine.workers.starting import BUDGET, demo, spread, worker_config

VOCABULARY = 300
PATIENCE = 60.0


@pytest.fixture(scope="module")
def single() -> PrefixEngine:
    engine = load_engine(demo(), "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    assert isinstance(engine, PrefixEngine)
    return engine


@pytest.fixture(scope="module", params=[(("cpu",), ("cpu",)), (("cpu", "cpu"),)], ids=["two workers", "split layers"])
def engine(request: pytest.FixtureRequest) -> Iterator[SpreadEngine]:
    workers: tuple[tuple[str, ...], ...] = request.param
    yield spread(*workers)
    gc.collect()


def batches(seed: int, count: int) -> Iterator[list[list[int]]]:
    """Yields batches of sequences that continue earlier ones, as trajectories and their candidates do."""
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


def test_several_processes_give_the_scores_that_one_gives(engine: SpreadEngine, single: PrefixEngine) -> None:
    for batch in batches(seed=1, count=30):
        reads = [range(len(ids)) for ids in batch]
        for scores, expected in zip(engine.score(batch, reads), single.score(batch, reads), strict=True):
            assert scores.raw == pytest.approx(expected.raw, abs=1e-5)
    assert engine.evicted_bytes > 0, "nothing was evicted"


def test_the_tokens_that_a_sequence_will_cost_are_known_beforehand(engine: SpreadEngine) -> None:
    """Also after evictions, because the mirrors evict what the workers evict."""
    cached = []
    for [first, *_] in batches(seed=2, count=40):
        [cost] = engine.extend_lens([first])
        [scored] = engine.score([first], [[len(first) - 1]])
        assert scored.computed == cost
        cached.append(cost < len(first))
    assert any(cached), "nothing was found in a cache"
    assert not all(cached)


def test_the_mirror_of_a_worker_tells_the_bytes_that_one_process_has() -> None:
    engine = spread(("cpu",))
    single = load_engine(demo(), "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    assert isinstance(single, PrefixEngine)
    for batch in batches(seed=3, count=30):
        for each in (engine, single):
            each.score(batch, [[0]] * len(batch))
        cache = single.prefix_cache
        assert (engine.used_bytes, engine.joined_bytes) == (cache.used_bytes, cache.joined_bytes)
        assert engine.evicted_bytes == cache.evicted_bytes
    assert engine.evicted_bytes > 0, "nothing was evicted"


def test_a_failed_batch_is_an_error_with_its_cause_and_the_next_one_scores(
    engine: SpreadEngine, single: PrefixEngine
) -> None:
    with pytest.raises(RuntimeError, match="index out of range"):
        engine.score([[1, 2, 3], [4, 5, 6]], [[2], [3]])
    [after] = engine.score([[1, 2, 3]], [[2]])
    assert after.raw == pytest.approx(single.score([[1, 2, 3]], [[2]])[0].raw, abs=1e-5)
    assert engine.extend_lens([[1, 2, 3, 4]]) == [1]


def test_unrelated_sequences_go_to_different_workers_and_related_ones_to_the_same() -> None:
    engine = spread(("cpu",), ("cpu",))
    engine.score([[1] * 50, [2] * 50], [[0], [0]])
    assert [mirror.match([1] * 50) + mirror.match([2] * 50) for mirror in engine.mirrors] == [50, 50]
    engine.score([[1] * 50 + [3], [1] * 50 + [4], [1] * 50 + [5], [2] * 50 + [3]], [[0]] * 4)
    longest = [[1] * 50 + [5], [2] * 50 + [3]]
    by_worker = [sorted(mirror.match(token_ids) for token_ids in longest) for mirror in engine.mirrors]
    assert by_worker == [[0, 51], [0, 51]]


def test_each_device_of_split_layers_caches_its_part_of_the_keys_and_values(single: PrefixEngine) -> None:
    engine = spread(("cpu", "cpu"))
    single.prefix_cache.clear()
    engine.score([[7] * 100], [[0]])
    single.score([[7] * 100], [[0]])
    not_split = NODE_BYTES + 100 * (TOKEN_ID_BYTES + 4)  # every device has the node, its token ids and its scores
    assert engine.used_bytes - not_split == (single.prefix_cache.used_bytes - not_split) // 2


def test_the_processes_end_with_the_engine() -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    engine = spread(("cpu",))
    [process] = set(multiprocessing.active_children()) - before
    assert process.is_alive()
    del engine
    gc.collect()
    process.join(PATIENCE)
    assert process.exitcode == 0


def test_a_worker_that_is_dropped_while_it_loads_leaves_no_process() -> None:
    gc.collect()
    before = set(multiprocessing.active_children())
    group = WorkerGroup(worker_config("cpu", "cpu"))
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del group
    gc.collect()
    for process in started:
        process.join(PATIENCE)
        assert not process.is_alive()


def test_a_checkpoint_that_cannot_be_loaded_raises_the_same_error_as_without_workers(tmp_path: Path) -> None:
    whole = demo()
    for file in whole.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    broken = replace(whole, path=tmp_path)
    with pytest.raises(CheckpointError) as in_process:
        load_checkpoint(broken, Settings(device="cpu"))
    with pytest.raises(CheckpointError) as in_worker:
        load_checkpoint(broken, Settings(device="cpu,cpu"))
    assert type(in_worker.value) is type(in_process.value) is CheckpointCorrupt
    assert str(in_worker.value) == str(in_process.value)


def test_heads_that_cannot_be_split_evenly_are_refused(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=50, hidden_size=12, num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=1
    )
    save_model(new_model(config, seed=0), tmp_path)
    odd = Checkpoint(tmp_path, replace(demo().manifest, context_length=64))
    with pytest.raises(CheckpointError, match="3 key/value heads cannot be split evenly over 2 devices"):
        WorkerGroup(worker_config("cpu", "cpu", checkpoint=odd)).loaded()


def test_a_model_runs_where_its_alias_is_placed() -> None:
    [placed], _ = load_models(Settings(device="cpu", placement={"demo": "cpu,cpu"}, cpu_threads=1))
    [usual], _ = load_models(Settings(device="cpu", placement={"other": "cpu,cpu"}, cpu_threads=1))
    assert (placed.device, usual.device) == ("cpu,cpu", "cpu")
    assert torch.get_num_threads() == 1


def test_quantised_weights_have_the_same_error_in_workers_and_cannot_be_split() -> None:
    [in_process], _ = load_models(Settings(device="cpu", weights="int8", cpu_threads=1))
    [in_workers], _ = load_models(Settings(device="cpu,cpu", weights="int8", cpu_threads=1))
    assert isinstance(in_process, LoadedModel)
    assert isinstance(in_workers, LoadedModel)
    assert in_workers.weights_error == in_process.weights_error is not None
    assert in_workers.dtype == in_process.dtype
    with pytest.raises(CheckpointError, match="weights of fewer bits cannot be split over devices"):
        WorkerGroup(worker_config("cpu", "cpu", weights="int8")).loaded()


def test_a_head_of_tied_embeddings_reads_them_whole(tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=50, hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
        intermediate_size=32, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    save_model(new_model(config, seed=0), tmp_path)
    recipe = ScoreRecipe(head="token_pair", activation="softmax", read="action_end", tokens=(3, 40))
    tied = Checkpoint(tmp_path, replace(demo().manifest, score=recipe, context_length=64))
    engine = SpreadEngine([WorkerGroup(worker_config("cpu", "cpu", checkpoint=tied))])
    expected = load_engine(tied, "cpu", "float32", prefix_cache_bytes=BUDGET, cpu_threads=1)
    call = [[1, 2, 3, 4, 5, 6, 7]], [range(7)]
    assert engine.score(*call)[0].raw == pytest.approx(expected.score(*call)[0].raw, abs=1e-5)


def test_workers_that_share_no_prefixes_compute_every_token(tmp_path: Path) -> None:
    save_model(new_model(Gemma2Config(**SHAPE), seed=0), tmp_path)
    capped = Checkpoint(tmp_path, replace(demo().manifest, context_length=64))
    engine = SpreadEngine([WorkerGroup(worker_config("cpu", checkpoint=capped))])
    batch = [[1, 2, 3, 4], [1, 2, 3, 5]]
    for _ in range(2):
        assert engine.extend_lens(batch) == [scored.computed for scored in engine.score(batch, [[3], [3]])] == [4, 4]
    assert not engine.mirrors[0].root.children, "a mirror of an empty cache must be empty"
