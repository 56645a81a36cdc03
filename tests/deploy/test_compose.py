"""The compose files, alone and merged: valid, pinned, hardened, and consistent with the service."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.serving import DRAIN_SECONDS
from tests.deploy.files import (
    AFTER_DRAIN_SECONDS,
    PINNED,
    ROOT,
    SETTINGS,
    VERSION,
    composed,
    mebibytes,
    read_yaml,
    seconds,
)

BASE = "docker-compose.yml"
GPU = "deploy/compose/gpu.yml"
REPLICAS = "deploy/compose/replicas.yml"
STACKS: list[tuple[str, ...]] = [(BASE,), (BASE, GPU), (BASE, REPLICAS)]
STANDS_ALONE: list[tuple[str, ...]] = [(GPU,), (REPLICAS,)]

each_stack = pytest.mark.parametrize("paths", STACKS, ids="+".join)


@pytest.mark.parametrize("paths", STACKS + STANDS_ALONE, ids="+".join)
def test_it_is_what_the_compose_specification_allows(paths: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "compose.json"
    file.write_text(json.dumps(composed(*paths)))
    tool = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([tool, "--builtin-schema", "vendor.compose-spec", file], check=True, timeout=100)


@each_stack
def test_every_variable_of_the_service_is_a_setting(paths: tuple[str, ...]) -> None:
    named = {name for name in composed(*paths)["services"]["agentprm"]["environment"] if name.startswith("AGENTPRM_")}
    assert named
    assert named <= SETTINGS


@each_stack
def test_every_path_that_is_mounted_exists_and_is_read_only(paths: tuple[str, ...]) -> None:
    whole = composed(*paths)
    for service in whole["services"].values():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists()
                assert target.endswith(":ro")
            else:
                assert source in whole["volumes"]


@each_stack
def test_every_image_is_pinned_and_ours_is_this_version(paths: tuple[str, ...]) -> None:
    services = composed(*paths)["services"]
    assert all(PINNED.fullmatch(service["image"]) for service in services.values())
    assert services["agentprm"]["image"] == f"agentprm:{VERSION}-{services['agentprm']['build']['target']}"


@each_stack
def test_the_service_has_time_to_drain(paths: tuple[str, ...]) -> None:
    services = composed(*paths)["services"]
    for name in {"agentprm", "proxy"} & services.keys():
        assert seconds(services[name]["stop_grace_period"]) > DRAIN_SECONDS + AFTER_DRAIN_SECONDS


@each_stack
def test_every_container_is_hardened_and_limited(paths: tuple[str, ...]) -> None:
    for service in composed(*paths)["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"cpus", "mem_limit", "pids_limit", "restart"} <= service.keys()


@each_stack
def test_only_this_machine_reaches_it_and_each_port_once(paths: tuple[str, ...]) -> None:
    ports = [port for service in composed(*paths)["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "127.0.0.1:8000:8000" in ports
    assert len(ports) == len(set(ports))


@each_stack
def test_only_the_service_reaches_redis(paths: tuple[str, ...]) -> None:
    whole = composed(*paths)
    (network,) = whole["services"]["redis"]["networks"]
    assert whole["networks"][network]["internal"]
    users = {name for name, service in whole["services"].items() if network in service.get("networks", [])}
    assert users == {"redis", "agentprm"}


@each_stack
def test_each_start_waits_for_the_health_of_what_it_needs(paths: tuple[str, ...]) -> None:
    services = composed(*paths)["services"]
    needed = [need for service in services.values() for need in service.get("depends_on", {}).items()]
    assert needed
    for name, how in needed:
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in services[name] or name == "agentprm"  # ours is in the image


def test_redis_evicts_by_itself_before_its_container_is_full() -> None:
    redis = composed(BASE)["services"]["redis"]
    words = redis["command"].split()
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--maxmemory-policy"] == "allkeys-lru"
    assert mebibytes(options["--maxmemory"]) < 0.8 * mebibytes(redis["mem_limit"])


def test_prometheus_scrapes_every_replica_and_grafana_asks_prometheus() -> None:
    services = composed(BASE)["services"]
    (scraped,) = read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
    (found,) = scraped["dns_sd_configs"]
    assert found["names"] == ["agentprm"]
    assert (found["type"], found["port"]) == ("A", 8000)
    (source,) = read_yaml("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/agentprm.yaml")["providers"]
    assert mounted(services["grafana"], "./deploy/grafana/dashboards") == provider["options"]["path"]


def mounted(service: dict[str, Any], source: str) -> str:
    """Returns the path in the container at which ``source`` is mounted."""
    (target,) = [volume.split(":")[1] for volume in service["volumes"] if volume.startswith(f"{source}:")]
    return str(target)
