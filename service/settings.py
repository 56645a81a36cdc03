"""Settings of the service, from ``AGENTPRM_*`` variables. No other module reads these."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agentprm.errors import AgentPRMError

PREFIX: Final = "AGENTPRM_"
_WORKER: Final = r"(cpu(\+cpu)*|cuda(:\d+)?(\+cuda(:\d+)?)*)"
PLACEMENT: Final = rf"^(auto|{_WORKER}(,{_WORKER})*)$"
CHECKPOINTS: Final = Path(__file__).parent.parent / "model_store" / "checkpoints"


OPTIONS: Final = {"host": "--host", "port": "--port", "models": "--model"}
"""Settings that the command line can give too."""


class SettingsError(AgentPRMError):
    """A variable is unknown, or has a value that cannot be used."""


def _split_at_commas(names: Any) -> Any:
    return tuple(name.strip() for name in names.split(",") if name.strip()) if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_at_commas), Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Telemetry = Literal["off", "traces", "events"]
Host = Annotated[str, Field(min_length=1), AfterValidator(lambda address: address.strip("[]"))]
"""Address to listen on. A URL has an IPv6 address in brackets, so people write it with them."""
Devices = Annotated[str, Field(pattern=PLACEMENT)]
Url = Annotated[str, Field(pattern=r"^(https?://[^/]\S*)?$", repr=False)]
"""Address of a server. No representation of the settings shows it, because it may hold a password."""


def _parse_pairs(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    return dict([part.strip() for part in pair.partition("=")[::2]] for pair in text.split(";") if pair.strip())


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0: a free one.")
    tls_certfile: Path | None = Field(
        default=None, description="PEM file with the certificate chain of HTTPS; unset: plain HTTP."
    )
    tls_keyfile: Path | None = Field(
        default=None,
        description="PEM file with the private key of the certificate; unset: it is in AGENTPRM_TLS_CERTFILE.",
    )
    model_store: Path = Field(default=CHECKPOINTS, description="Directory of checkpoints.")
    models: Names = Field(
        default=("demo",),
        description="Names or aliases of the models to load, comma-separated; the first is the default model.",
    )
    device: str = Field(
        default="auto",
        pattern=PLACEMENT,
        description="auto, cpu, cuda or cuda:N; auto: cuda if there is one. A comma separates devices with a "
        "worker each; + joins devices into one worker.",
    )
    placement: Annotated[dict[str, Devices], NoDecode, BeforeValidator(_parse_pairs)] = Field(
        default={},
        description="Devices of single models, as prod=cuda:0+cuda:1;demo=cuda:2; empty: AGENTPRM_DEVICE holds "
        "for all.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Data type of the backbone; auto: the checkpoint's on cuda, float32 on cpu."
    )
    weights: Literal["auto", "int8", "int4"] = Field(
        default="auto",
        description="Quantisation of the backbone's linear layers; auto: none, they have the dtype. int4 needs "
        "bfloat16.",
    )
    cpu_threads: Count | None = Field(
        default=None, description="Threads of a forward on a CPU; unset: one for each core that this process may use."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with hashes of API keys; unset: requests need no key, and there are no admin routes.",
    )
    guard_metrics: bool = Field(default=False, description="Whether /metrics needs an API key too.")
    max_requests: Count = Field(
        default=1024, description="Most requests for scores or with outcomes in flight; above it 429."
    )
    max_items: Count = Field(default=64, description="Most items in one request.")
    max_candidates: Count = Field(default=64, description="Most candidates in one item.")
    max_body_bytes: Count = Field(default=4 * 1024 * 1024, description="Most bytes in a request body.")
    max_queue_tokens: Count = Field(
        default=131_072,
        description="Most tokens to compute that may wait; above it 429, or 413 if the request alone has more.",
    )
    max_batch_tokens: Count | None = Field(
        default=None,
        description="Most tokens computed in one forward; longer sequences run in pieces. Unset: chosen for the "
        "device.",
    )
    max_wait_ms: float = Field(
        default=0, ge=0, le=1000, description="Milliseconds that an idle engine waits for a batch to fill; 0: none."
    )
    prefix_cache_bytes: int = Field(
        default=1024**3,
        ge=0,
        description="Bytes that each model's prefix cache may take up on each device, with all that belongs to it; "
        "0: no prefix cache.",
    )
    score_cache_items: int = Field(
        default=100_000, ge=0, description="Scores kept in memory for later requests; 0: none."
    )
    score_cache_namespace: str = Field(
        default="agentprm",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Beginning of the keys of this service's scores in Redis.",
    )
    score_cache_ttl_seconds: int = Field(
        default=604_800, ge=0, description="Seconds that Redis keeps a score; 0: until Redis evicts it."
    )
    redis_url: str = Field(
        default="",
        repr=False,
        description="URL of the Redis whose scores all replicas share: redis://, rediss://, redis+sentinel:// or "
        "redis+cluster://; empty: no Redis.",
    )
    redis_timeout_ms: float = Field(
        default=25, gt=0, le=1000, description="Milliseconds that a request waits for Redis before it computes."
    )
    judge_url: Url = Field(
        default="", description="URL of the text-generation server of all judges; empty: no judge can be loaded."
    )
    judge_api_key_file: Path | None = Field(
        default=None, description="File with the API key of the judges' server; unset: it needs none."
    )
    policy_url: Url = Field(
        default="", description="URL of the text-generation server that samples actions; empty: requests cannot sample."
    )
    policy_api_key_file: Path | None = Field(
        default=None, description="File with the API key of the policy's server; unset: it needs none."
    )
    policy_model: str = Field(
        default="",
        description="Name of the model on the policy's server; empty: for a TGI server, which has one model.",
    )
    remote_calls: Count = Field(
        default=32, description="Most calls at once to a text-generation server, for each judge and for the policy."
    )
    max_remote_queue: Count = Field(
        default=4096,
        description="Most calls that may wait for a text-generation server; above it 429, or 413 if the request "
        "alone has more.",
    )
    remote_timeout_ms: Count = Field(
        default=120_000, description="Milliseconds for one attempt of a call to a text-generation server."
    )
    record: Path | None = Field(
        default=None,
        description="Directory for rollout files of scored trajectories and outcomes; unset: nothing is recorded.",
    )
    record_max_bytes: Count = Field(
        default=10 * 1024**3, description="Most bytes of all rollout files in that directory; then recording stops."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="text for people or json for log collectors; one line for each request."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )
    otel: Telemetry = Field(
        default="off",
        description="off, traces or events; traces: spans are sent over OTLP; events: so are scores. OTEL_ "
        "variables say where.",
    )

    def devices_of(self, *names: str) -> str:
        """Returns the devices of a model: those of the first of its ``names`` in ``placement``, else ``device``."""
        return next((self.placement[name] for name in names if name in self.placement), self.device)


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Returns the number of cores that this process may use: its CPU affinity, limited by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if quota.exists():
        microseconds, _, period = quota.read_text(encoding="ascii").partition(" ")
        if microseconds != "max":
            cores = min(cores, int(microseconds) // int(period))
    return max(1, cores)


def names_proxies() -> bool:
    """Returns whether uvicorn's variable FORWARDED_ALLOW_IPS names proxies whose ``X-Forwarded-For`` it believes."""
    return "FORWARDED_ALLOW_IPS" in os.environ


def load_settings(options: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings of this process.

    Args:
        options: settings of the command line, by field. They win over the environment.

    Raises:
        SettingsError: a variable is unknown, or a value is wrong; the message says which, and what is allowed.
    """
    options = options or {}
    _refuse_service_links()
    known = [variable(name) for name in Settings.model_fields]
    for found in sorted(os.environ):
        if found.upper().startswith(PREFIX) and found.upper() not in known:
            nearest = difflib.get_close_matches(found.upper(), known, n=1, cutoff=0)[0]
            raise SettingsError(f"{found} is not a setting; the nearest is {nearest}")
    try:
        return Settings(**dict[str, Any](options))
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(each, options) for each in error.errors())) from error


def ignored_variables() -> list[str]:
    """Returns a sentence for each variable that a user of uvicorn may have set and that does nothing here."""
    sentences = []
    for found in sorted(os.environ):
        field = found.removeprefix("UVICORN_").lower()
        if found == "WEB_CONCURRENCY" and os.environ[found] not in ("", "1"):
            sentences.append(
                f"{found} is ignored: one process serves, and AGENTPRM_DEVICE gives a model several workers"
            )
        elif found.startswith("UVICORN_") and field in Settings.model_fields:
            sentences.append(f"{found} is ignored: {variable(field)} is the variable of that setting")
        elif found.startswith("UVICORN_"):
            sentences.append(f"{found} is ignored: it is a variable of uvicorn's own command line")
    return sentences


def variable(field: str) -> str:
    """Returns the name of a setting's environment variable."""
    return PREFIX + field.upper()


def _refuse_service_links() -> None:
    """Refuses the variables that Kubernetes makes of a Service whose name begins with ``agentprm``."""
    for found in sorted(name for name in os.environ if name.startswith(PREFIX)):
        if found.endswith("SERVICE_HOST") or os.environ[found].startswith(("tcp://", "udp://", "sctp://")):
            raise SettingsError(
                f"{found} is a variable that Kubernetes makes of a Service; set enableServiceLinks: false in the pod, "
                "or give the Service a name that does not begin with agentprm"
            )


def _sentence(error: Any, options: Mapping[str, str]) -> str:
    field = str(error["loc"][0])
    name = OPTIONS[field] if field in options else variable(field)
    _, complaint = error["msg"].split(" ", maxsplit=1)  # "Input should be greater than ..."
    if not Settings.model_fields[field].repr and "@" in str(error["input"]):  # a login with a password, perhaps
        return f"{name} is set to what cannot be used: it {complaint}"
    return f"{name} is {error['input']!r} but {complaint}"
