from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings, usable_cores

NAMES = {
    "HOST", "PORT", "MODEL_STORE", "MODELS", "DEVICE", "PLACEMENT", "DTYPE", "WEIGHTS", "PREFIX_CACHE_BYTES",
    "MAX_BATCH_TOKENS",
    "MAX_QUEUE_TOKENS", "MAX_WAIT_MS", "MAX_ITEMS", "MAX_CANDIDATES", "MAX_BODY_BYTES", "LOG_FORMAT", "LOG_LEVEL",
    "RECORD", "RECORD_MAX_BYTES",
    "API_KEYS_FILE", "GUARD_METRICS", "TLS_CERTFILE", "TLS_KEYFILE", "MAX_REQUESTS",
    "JUDGE_URL", "JUDGE_API_KEY_FILE", "POLICY_URL", "POLICY_API_KEY_FILE", "POLICY_MODEL",
    "REMOTE_CALLS", "REMOTE_TIMEOUT_MS", "MAX_REMOTE_QUEUE",
    "CPU_THREADS", "REDIS_URL", "REDIS_TIMEOUT_MS",
    "SCORE_CACHE_ITEMS", "SCORE_CACHE_NAMESPACE", "SCORE_CACHE_TTL_SECONDS", "OTEL",
}  # fmt: skip


def test_the_settings_are_the_agreed_ones_and_each_is_described() -> None:
    assert {name.upper() for name in Settings.model_fields} == NAMES
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_MODELS", "demo, prod@2,")
    monkeypatch.setenv("AGENTPRM_PORT", "81")
    settings = load_settings()
    assert (settings.models, settings.port) == (("demo", "prod@2"), 81)


def test_an_unknown_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_MAX_BATCH_TOKEN", "1")
    with pytest.raises(SettingsError, match=r"AGENTPRM_MAX_BATCH_TOKEN is not .* AGENTPRM_MAX_BATCH_TOKENS$"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("MODELS", " , "),
        ("DEVICE", "tpu"),
        ("DEVICE", "cuda:0,"),
        ("DEVICE", "auto,cpu"),
        ("DEVICE", "cpu+cuda:0"),
        ("DTYPE", "int8"),
        ("WEIGHTS", "int2"),
        ("MAX_BATCH_TOKENS", "0"),
        ("PREFIX_CACHE_BYTES", "-1"),
        ("MAX_WAIT_MS", "-1"),
        ("MAX_WAIT_MS", "nan"),
        ("JUDGE_URL", "judge:8000"),
        ("REMOTE_CALLS", "0"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AGENTPRM_{name}", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).startswith(f"AGENTPRM_{name} is {value!r} but should ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("300000 100000\n", 3), ("max 100000\n", 8)]
)
def test_a_container_is_not_given_more_threads_than_its_quota_of_cores(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores
    assert usable_cores(tmp_path / "no such file") == 8


def test_single_models_have_devices_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_DEVICE", "cuda:0,cuda:1")
    monkeypatch.setenv("AGENTPRM_PLACEMENT", "prod = cuda:2+cuda:3; demo@2=cpu")
    settings = load_settings()
    assert settings.devices_of("big@1", "prod", "big") == "cuda:2+cuda:3"
    assert settings.devices_of("demo@2", "demo") == "cpu"
    assert settings.devices_of("demo@1", "demo") == "cuda:0,cuda:1"


@pytest.mark.parametrize("value", ["prod", "prod=tpu", "=cpu+"])
def test_a_placement_that_names_no_device_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTPRM_PLACEMENT", value)
    with pytest.raises(SettingsError, match=r"^AGENTPRM_PLACEMENT"):
        load_settings()
