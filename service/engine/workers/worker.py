"""The process of one device: loads its part of a model, then scores what it is sent until the pipe is closed.

The devices of a tensor-parallel worker are sent the same calls in the same order. Their engines keep the same tree and
plan the same rows, so every forward is the same on all of them, and nothing else has to be agreed on.
"""

import gc
import os
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

import torch
from torch import distributed

from agentprm.errors import AgentPRMError
from model_store.format.store import Checkpoint
from model_store.network.quantise import ScoreError
from service.engine.contract import DeviceLost, OutOfMemory, SequenceScores
from service.engine.device_memory import gpu_memory
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import Weights, load_engine
from service.logs import set_up_logging

MEASURING_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker's process is told at its start; ``rank`` is its place among the ``devices`` of its worker."""

    checkpoint: Checkpoint
    devices: tuple[str, ...]
    rank: int = 0
    meeting: str = ""
    """A file that does not exist yet, by which the processes of a tensor-parallel worker find each other."""
    dtype: str
    weights: Weights
    prefix_cache_bytes: int
    cpu_threads: int
    log_level: str
    log_format: Literal["text", "json"]

    def load(self) -> tuple[PrefixEngine | PaddedEngine, ScoreError | None]:
        """The engine of this rank, in this process, and what quantised weights cost it. Raises as ``load_engine``."""
        errors: list[ScoreError] = []
        engine = load_engine(
            self.checkpoint,
            self.devices[self.rank],
            self.dtype,
            prefix_cache_bytes=self.prefix_cache_bytes,
            cpu_threads=self.cpu_threads,
            split_over=len(self.devices),
            weights=self.weights,
            on_quantised=errors.append,
        )
        return engine, errors[0] if errors else None


class Call(NamedTuple):
    token_ids: list[list[int]]
    reads: list[list[int]]


class WorkerInfo(NamedTuple):
    """What a loaded worker is; ``token_bytes`` are those held for a token, None if nothing is held."""

    dtype: str
    vocabulary: int
    row_tokens: int
    token_bytes: int | None
    weights_error: ScoreError | None


class Scored(NamedTuple):
    scores: list[SequenceScores]
    padding_tokens: int
    joined_bytes: int
    """Held out of the prefix cache's bytes for what is not in its tree."""
    gpu_memory: dict[str, dict[str, int]]


class Failed(NamedTuple):
    """``kind`` is the name of the error's class; what is not one of the service's own comes with its traceback."""

    kind: str
    message: str


def run(job: WorkerConfig, pipe: Connection) -> None:
    """The life of the process."""
    # What all processes of a service are sent is for the first: it closes the pipe once it has answered everybody.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    set_up_logging(job.log_level if job.rank == 0 else "error", job.log_format)
    try:
        _serve(job, pipe)
    except (EOFError, OSError):  # the service has closed the pipe, or is gone
        os._exit(0)  # without a last word to a process group whose others may be gone


def _serve(job: WorkerConfig, pipe: Connection) -> None:
    try:
        _meet(job)
        engine, weights_error = job.load()
        facts = _facts(engine, weights_error)
    except Exception as error:  # noqa: BLE001  (whatever it is, somebody waits for it)
        pipe.send(_failed(error))
        return
    gc.collect()
    gc.freeze()
    pipe.send(facts)
    while True:
        pipe.send(_answer(engine, pipe.recv()))


def _meet(job: WorkerConfig) -> None:
    """The processes of a worker with several devices find each other."""
    if len(job.devices) == 1:
        return
    device = torch.device(job.devices[job.rank])
    # As transformers is told which device of the machine is this process's.
    os.environ["LOCAL_RANK"] = str(job.rank if device.type == "cpu" else device.index or 0)
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        init_method=f"file://{job.meeting}",
        rank=job.rank,
        world_size=len(job.devices),
    )


def _facts(engine: PrefixEngine | PaddedEngine, weights_error: ScoreError | None) -> WorkerInfo:
    token_bytes = None
    if isinstance(engine, PrefixEngine):
        limit, engine.prefix_cache.max_bytes = engine.prefix_cache.max_bytes, 2**40
        engine.score([[0] * MEASURING_TOKENS], [[]])
        token_bytes = engine.prefix_cache.used_bytes // MEASURING_TOKENS
        engine.prefix_cache.clear()
        engine.prefix_cache.max_bytes = limit
    return WorkerInfo(engine.dtype, engine.vocabulary, engine.row_tokens, token_bytes, weights_error)


def _answer(engine: PrefixEngine | PaddedEngine, call: Call) -> Scored | Failed:
    try:
        scores = engine.score(call.token_ids, call.reads)
    except Exception as error:  # noqa: BLE001  (the service decides what it means)
        if isinstance(engine, PrefixEngine):
            engine.prefix_cache.clear()  # as the service does with its copy of the tree
        return _failed(error)
    padding = engine.padding_tokens if isinstance(engine, PaddedEngine) else 0
    beside = engine.prefix_cache.joined_bytes if isinstance(engine, PrefixEngine) else 0
    return Scored(scores, padding, beside, gpu_memory())


def _failed(error: Exception) -> Failed:
    known = isinstance(error, AgentPRMError | OutOfMemory | DeviceLost)
    return Failed(type(error).__name__, str(error) if known else "".join(traceback.format_exception(error)))
