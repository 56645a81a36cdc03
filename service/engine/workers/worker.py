"""The process of one device: loads its part of a model, then answers calls until the pipe is closed.

The processes of a tensor-parallel worker receive the same calls in the same order. Their engines keep the same prefix
tree and plan the same rows. So they run the same forwards and need no other coordination.
"""

import gc
import os
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Literal, NamedTuple

import torch
from torch import distributed

from agentprm.errors import AgentPRMError
from model_store.format.store import Checkpoint
from model_store.network.quantise import ScoreError
from service.engine.contract import DeviceLost, OutOfMemory, SequenceScores
from service.engine.device_memory import Memory, gpu_memory
from service.engine.node_bytes import NODE_BYTES
from service.engine.padded_engine import PaddedEngine
from service.engine.prefix_engine import PrefixEngine
from service.engine.selection import Weights, load_engine
from service.logs import set_up_logging

MEASURED_TOKENS: Final = 16
"""Tokens that are scored once to measure the cached bytes of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Settings of one worker process; ``rank`` is the index of its device in ``devices``."""

    checkpoint: Checkpoint
    devices: tuple[str, ...]
    rank: int = 0
    rendezvous: str = ""
    """Path of a file that does not exist yet; the processes of a tensor-parallel worker find each other through it."""
    dtype: str
    weights: Weights
    prefix_cache_bytes: int
    cpu_threads: int
    log_level: str
    log_format: Literal["text", "json"]

    def load(self) -> tuple[PrefixEngine | PaddedEngine, ScoreError | None]:
        """Loads this rank's engine into this process; returns it and the score error of quantised weights.

        Raises:
            CheckpointError: the weights cannot be loaded or do not fit into free memory.
            AgentPRMError: the device does not exist, or torchao is missing.
        """
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
    """Arguments of one ``score`` call, as a worker receives them."""

    token_ids: list[list[int]]
    reads: list[list[int]]


class WorkerInfo(NamedTuple):
    """Properties of a loaded worker, its first reply."""

    dtype: str
    vocabulary: int
    row_tokens: int
    token_bytes: int | None
    """Cached bytes of one token, in addition to those of its node; None if the engine caches nothing."""
    weights_error: ScoreError | None


class ScoreReply(NamedTuple):
    """Reply to a call that succeeded."""

    scores: list[SequenceScores]
    padding_tokens: int
    """Padding tokens computed for this call."""
    joined_bytes: int
    """Bytes of joined copies, which count against the prefix cache's limit."""
    gpu_memory: Memory


class FailureReply(NamedTuple):
    """Reply to a call or a load that failed.

    ``kind`` is the name of the error's class. The message of an unexpected error includes its traceback.
    """

    kind: str
    message: str


def run(config: WorkerConfig, pipe: Connection) -> None:
    """Runs the worker until the other end of the pipe is closed; the main function of the process."""
    # Signals reach every process of the service. Only the service acts on them: it answers all, then closes the pipe.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    set_up_logging(config.log_level if config.rank == 0 else "error", config.log_format)
    try:
        _serve(config, pipe)
    except (EOFError, OSError):  # the service has closed the pipe, or has died
        os._exit(0)  # a normal exit would wait for a process group whose other processes may have ended


def _serve(config: WorkerConfig, pipe: Connection) -> None:
    try:
        _init_process_group(config)
        engine, weights_error = config.load()
        info = _worker_info(engine, weights_error)
    except Exception as error:  # noqa: BLE001  (the service waits for a reply, whatever the error)
        pipe.send(_failure(error))
        return
    gc.collect()
    gc.freeze()
    pipe.send(info)
    while True:
        pipe.send(_reply(engine, pipe.recv()))


def _init_process_group(config: WorkerConfig) -> None:
    """Joins the process group of a worker with several devices; waits for all its processes."""
    if len(config.devices) == 1:
        return
    device = torch.device(config.devices[config.rank])
    # transformers takes the device of this process from here.
    os.environ["LOCAL_RANK"] = str(config.rank if device.type == "cpu" else device.index or 0)
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        init_method=f"file://{config.rendezvous}",
        rank=config.rank,
        world_size=len(config.devices),
    )


def _worker_info(engine: PrefixEngine | PaddedEngine, weights_error: ScoreError | None) -> WorkerInfo:
    token_bytes = None
    if isinstance(engine, PrefixEngine):
        limit, engine.prefix_cache.max_bytes = engine.prefix_cache.max_bytes, 2**40
        engine.score([[0] * MEASURED_TOKENS], [[]])
        token_bytes = (engine.prefix_cache.used_bytes - NODE_BYTES) // MEASURED_TOKENS
        engine.prefix_cache.clear()
        engine.prefix_cache.max_bytes = limit
    return WorkerInfo(engine.dtype, engine.vocabulary, engine.row_tokens, token_bytes, weights_error)


def _reply(engine: PrefixEngine | PaddedEngine, call: Call) -> ScoreReply | FailureReply:
    padding_before = _padding_tokens(engine)
    try:
        scores = engine.score(call.token_ids, call.reads)
    except Exception as error:  # noqa: BLE001  (the service decides which errors are fatal)
        if isinstance(engine, PrefixEngine):
            engine.prefix_cache.clear()  # the service clears its mirror of the tree too
        return _failure(error)
    joined_bytes = engine.prefix_cache.joined_bytes if isinstance(engine, PrefixEngine) else 0
    return ScoreReply(scores, _padding_tokens(engine) - padding_before, joined_bytes, gpu_memory())


def _padding_tokens(engine: PrefixEngine | PaddedEngine) -> int:
    return engine.padding_tokens if isinstance(engine, PaddedEngine) else 0


def _failure(error: Exception) -> FailureReply:
    expected = isinstance(error, AgentPRMError | OutOfMemory | DeviceLost)
    return FailureReply(type(error).__name__, str(error) if expected else "".join(traceback.format_exception(error)))
