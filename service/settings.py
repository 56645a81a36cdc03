"""What can be set, from ``AGENTPRM_*`` variables. The only module that reads the environment."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agentprm.errors import AgentPRMError

PREFIX: Final = "AGENTPRM_"
_WORKER: Final = r"(cpu(\+cpu)*|cuda(:\d+)?(\+cuda(:\d+)?)*)"
PLACEMENT: Final = rf"^(auto|{_WORKER}(,{_WORKER})*)$"
CHECKPOINTS: Final = Path(__file__).parent.parent / "model_store" / "checkpoints"


class SettingsError(AgentPRMError):
    """A variable that is unknown or holds a value that cannot be used."""


def _split(names: Any) -> Any:
    return tuple(name.strip() for name in names.split(",") if name.strip()) if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Telemetry = Literal["off", "traces", "events"]
Devices = Annotated[str, Field(pattern=PLACEMENT)]
Url = Annotated[str, Field(pattern=r"^(https?://[^/]\S*)?$")]


def _pairs(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    return dict([part.strip() for part in one.partition("=")[::2]] for one in text.split(";") if one.strip())


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    model_store: Path = Field(default=CHECKPOINTS, description="Directory of checkpoints.")
    models: Names = Field(
        default=("demo",), description="Names or aliases to load, comma-separated; the first is the default."
    )
    device: str = Field(
        default="auto",
        pattern=PLACEMENT,
        description="auto, cpu, cuda or cuda:N; auto: cuda if there is one. With commas one worker each, with + one "
        "worker over several.",
    )
    placement: Annotated[dict[str, Devices], NoDecode, BeforeValidator(_pairs)] = Field(
        default={}, description="The devices of single models instead, as prod=cuda:0+cuda:1;demo=cuda:2."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="The backbone's dtype; auto: the checkpoint's on cuda, float32 on cpu."
    )
    weights: Literal["auto", "int8", "int4"] = Field(
        default="auto",
        description="Of the backbone's linear layers; auto: as the dtype has them. int4 goes with bfloat16.",
    )
    cpu_threads: Count | None = Field(
        default=None, description="Threads of a forward on a CPU; unset: one for each core that this process may use."
    )
    prefix_cache_bytes: int = Field(
        default=1024**3, ge=0, description="Bytes of keys and values that each model keeps for later requests; 0: off."
    )
    score_cache_items: int = Field(
        default=100_000, ge=0, description="Scores kept in the process for later requests; 0: none."
    )
    score_cache_namespace: str = Field(
        default="agentprm",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="What the keys of this service's scores begin with in Redis.",
    )
    score_cache_ttl_seconds: int = Field(
        default=604_800, ge=0, description="How long Redis keeps a score; 0: until it is evicted."
    )
    redis_url: str = Field(
        default="",
        description="Redis for the scores that replicas share: redis://, rediss://, redis+sentinel:// or "
        "redis+cluster://; empty: none.",
    )
    redis_timeout_ms: float = Field(
        default=25, gt=0, le=1000, description="How long a request waits for Redis before it computes."
    )
    judge_url: Url = Field(
        default="", description="Text-generation server that judges run on; empty: none, and no judge can be loaded."
    )
    judge_api_key_file: Path | None = Field(default=None, description="Holds the key for it; unset: it wants none.")
    policy_url: Url = Field(
        default="", description="Text-generation server that actions are sampled from; empty: none are."
    )
    policy_api_key_file: Path | None = Field(default=None, description="Holds the key for it; unset: it wants none.")
    policy_model: str = Field(default="", description="Name of the model on that server; a TGI server needs none.")
    remote_calls: Count = Field(
        default=32, description="Calls that may run at once to such a server, for each judge and for the policy."
    )
    max_remote_queue: Count = Field(
        default=4096, description="Calls that may wait for that; over it 429, a request over it by itself 413."
    )
    remote_timeout_ms: Count = Field(default=120_000, description="How long one attempt of a call may take.")
    tls_certfile: Path | None = Field(
        default=None, description="Certificate chain in PEM; with it the service speaks HTTPS. Unset: HTTP."
    )
    tls_keyfile: Path | None = Field(
        default=None, description="Private key of the certificate; unset: it is in the same file."
    )
    api_keys_file: Path | None = Field(
        default=None, description="Hashes of the keys that may ask; unset: whoever reaches the port may."
    )
    guard_metrics: bool = Field(default=False, description="Whether /metrics needs a key too.")
    max_batch_tokens: Count | None = Field(
        default=None,
        description="Tokens computed in one forward, longer sequences in pieces; unset: what suits the device.",
    )
    max_queue_tokens: Count = Field(
        default=131_072,
        description="Tokens still to be computed that may wait; over it 429, a request over it by itself 413.",
    )
    max_requests: Count = Field(
        default=1024, description="Requests for scores that may be in the service at once; over it 429."
    )
    max_wait_ms: float = Field(
        default=0, ge=0, le=1000, description="How long an idle engine waits for a batch to fill."
    )
    max_items: Count = Field(default=64, description="Most items in one request.")
    max_candidates: Count = Field(default=64, description="Most candidates in one item.")
    max_body_bytes: Count = Field(default=4 * 1024 * 1024, description="Longest request body.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="text for a person, json for a collector; one line a request."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )
    otel: Telemetry = Field(
        default="off",
        description="traces: spans go to a collector by OTLP; events: scores do too. The OTEL_ variables say where.",
    )

    def devices_of(self, *names: str) -> str:
        """What ``placement`` says of a model under the first of its names that it knows, else ``device``."""
        return next((self.placement[name] for name in names if name in self.placement), self.device)


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it may run on, and no more than its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if quota.exists():
        microseconds, _, period = quota.read_text(encoding="ascii").partition(" ")
        if microseconds != "max":
            cores = min(cores, int(microseconds) // int(period))
    return max(1, cores)


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: an unknown ``AGENTPRM_`` variable or a wrong value; says which and what would do.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for variable in sorted(os.environ):
        if variable.upper().startswith(PREFIX) and variable.upper() not in known:
            nearest = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0)[0]
            raise SettingsError(f"{variable} is not a setting; the nearest is {nearest}")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(wrong["loc"], wrong) for wrong in error.errors())) from error


def _sentence(loc: tuple[int | str, ...], wrong: Any) -> str:
    _, complaint = wrong["msg"].split(" ", maxsplit=1)  # "Input should be greater than ..."
    return f"{PREFIX}{str(loc[0]).upper()} is {wrong['input']!r} but {complaint}"
