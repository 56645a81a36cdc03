"""Switching traces on and off, the sender's attributes, and collectors that fail."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import SettingsError
from service.tracing import open_tracing
from service.tracing.exports import Exports
from tests.service.echo_app import item, serving
from tests.service.tracing.collector import Collector
from tests.service.tracing.test_tracing import SAMPLED, asked

ROOT = Path(__file__).parents[3]


def test_who_sends_is_told_and_can_be_renamed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    asked("/score_step", item())
    monkeypatch.setenv("OTEL_SERVICE_NAME", "judge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,service.instance.id=pod-1")
    asked("/score_step", item(), otel="traces")
    ours, *_, renamed = collector.resources
    assert ours["service.name"] == "agentprm"
    assert ours["service.instance.id"]
    assert [renamed[f"service.{name}"] for name in ("name", "version", "instance.id")] == ["judge", "9", "pod-1"]


def test_a_collector_that_fails_is_complained_of_once_until_it_takes_something(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")

    async def scenario() -> None:
        async with serving(otel="traces") as client:
            for number, status in enumerate((400, 400, 400, 200, 400), start=1):
                collector.status = status
                await client.get("/models", headers=SAMPLED)
                await asyncio.to_thread(collector.wait_for, number)

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    lines = [record.message for record in caplog.records if "tracing" in record.name or "opentelemetry" in record.name]
    failed = "Failed to export spans batch code: 400, reason: Bad Request"
    assert lines == [failed, "spans are delivered again", failed]


def test_a_missing_package_is_one_sentence_that_names_it_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("service.tracing.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk._logs", None)
    with pytest.raises(SettingsError, match=r"^AGENTPRM_OTEL is 'traces' but opentelemetry\S+ is not .*agentprm\[otel"):
        open_tracing("traces")


def test_a_wrong_variable_of_the_sdk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with pytest.raises(SettingsError, match=r"^AGENTPRM_OTEL is 'events' but an OTEL_ variable .* max_queue_size"):
        open_tracing("events")


def test_fastapis_own_telemetry_stays_off(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """The providers of another program in the process, such as an instrumentation agent, do not turn it on."""
    exports = Exports(events=True)
    spans, records = exports.providers
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", spans)
    monkeypatch.setattr("opentelemetry._logs._internal._LOGGER_PROVIDER", records)

    async def scenario() -> None:
        async with serving() as client:
            for items in ([item()], []):
                await client.post("/score_step", json={"items": items}, headers=SAMPLED)
        await exports.close()

    asyncio.run(scenario())
    assert not collector.bodies


def test_while_traces_are_off_nothing_that_sends_them_is_imported() -> None:
    code = (
        "import asyncio, sys; from tests.service.echo_app import item, serving\n"
        "async def ask():\n"
        "    async with serving() as client:\n"
        "        assert (await client.post('/score_step', json={'items': [item()]})).status_code == 200\n"
        "asyncio.run(ask())\n"
        "heavy = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'opentelemetry.proto', 'service.tracing.')\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(heavy)) or 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
