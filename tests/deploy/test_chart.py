"""The Helm chart, rendered with its defaults and with every switch on."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.serving import DRAIN_SECONDS
from tests.deploy.files import AFTER_DRAIN_SECONDS, ROOT, SETTINGS, VERSION, manifests, read_yaml

CHART = ROOT / "deploy" / "helm" / "agentprm"
DEFAULTS: tuple[str, ...] = ()
EVERYTHING = ("--values", str(CHART / "ci" / "everything.yaml"))
KUBERNETES = ["1.31", "1.37"]
CUSTOM = "monitoring.coreos.com/v1"

HELM = shutil.which("helm", path=Path(sys.executable).parent) or shutil.which("helm")
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is missing: make .venv/bin/helm")

both = pytest.mark.parametrize("values", [DEFAULTS, EVERYTHING], ids=["defaults", "everything"])


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, check=False, timeout=100)


@cache
def rendered(*values: str) -> dict[str, dict[str, Any]]:
    """Returns the chart's objects by kind; each kind occurs once."""
    done = helm("template", "agentprm", str(CHART), *values)
    assert done.returncode == 0, done.stderr
    objects = list(manifests(done.stdout))
    by_kind = {manifest["kind"]: manifest for manifest in objects}
    assert len(by_kind) == len(objects)
    return by_kind


def pod(*values: str) -> Any:
    return rendered(*values)["Deployment"]["spec"]["template"]["spec"]


@both
def test_it_passes_the_linter(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", str(CHART), *values)
    assert done.returncode == 0, done.stdout + done.stderr


@both
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_what_it_renders_is_what_kubernetes_takes(kubernetes: str, values: tuple[str, ...]) -> None:
    for manifest in rendered(*values).values():
        if manifest["apiVersion"] != CUSTOM:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_everything_is_rendered_when_all_is_on() -> None:
    assert rendered(*EVERYTHING).keys() == {
        "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PersistentVolumeClaim",
        "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Service", "ServiceAccount",
    }  # fmt: skip
    assert rendered(*DEFAULTS).keys() == {
        "ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount",
    }  # fmt: skip


@both
def test_every_variable_is_a_setting(values: tuple[str, ...]) -> None:
    (container,) = pod(*values)["containers"]
    named = {variable["name"] for variable in container.get("env", [])} | rendered(*values)["ConfigMap"]["data"].keys()
    assert {name for name in named if not name.startswith("OTEL_")} <= SETTINGS


@both
def test_the_pod_has_time_to_drain(values: tuple[str, ...]) -> None:
    (container,) = pod(*values)["containers"]
    _, leaving = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod(*values)["terminationGracePeriodSeconds"] > int(leaving) + DRAIN_SECONDS + AFTER_DRAIN_SECONDS


@both
def test_every_container_is_hardened_and_every_mount_has_its_volume(values: tuple[str, ...]) -> None:
    containers = (*pod(*values)["initContainers"], *pod(*values)["containers"])
    ours = [container for container in containers if container["name"] != "fetch"]
    assert len(ours) == 2
    for container in ours:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert container["resources"].keys() == {"requests", "limits"}
        volumes = {volume["name"] for volume in pod(*values)["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert pod(*values)["securityContext"]["runAsNonRoot"]
    assert pod(*values)["enableServiceLinks"] is False  # AGENTPRM_PORT=tcp://... would end the start


@both
def test_every_selector_finds_the_pods(values: tuple[str, ...]) -> None:
    labels = rendered(*values)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    specs = {kind: manifest["spec"] for kind, manifest in rendered(*values).items() if "spec" in manifest}
    selectors = [specs["Service"]["selector"], specs["NetworkPolicy"]["podSelector"]["matchLabels"]]
    selectors += [
        spec["selector"]["matchLabels"] for spec in specs.values() if "matchLabels" in spec.get("selector", {})
    ]
    assert len(selectors) >= 4
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_chart_is_of_this_version_and_its_image_too() -> None:
    chart = read_yaml("deploy/helm/agentprm/Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    assert pod()["containers"][0]["image"] == f"agentprm:{VERSION}-cpu"


def test_other_settings_make_other_pods() -> None:
    def checksum(*values: str) -> Any:
        return rendered(*values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]

    assert checksum() != checksum("--set-string", "settings.MAX_ITEMS=8")


def test_variables_of_opentelemetry_reach_the_container_under_their_names() -> None:
    data = rendered(*EVERYTHING)["ConfigMap"]["data"]
    assert (data["AGENTPRM_OTEL"], data["OTEL_EXPORTER_OTLP_ENDPOINT"]) == ("traces", "http://collector:4318")
    assert not [name for name in rendered(*DEFAULTS)["ConfigMap"]["data"] if name.startswith("OTEL_")]


def test_the_rules_are_those_that_prometheus_reads_under_compose() -> None:
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    assert groups
    assert rendered(*EVERYTHING)["PrometheusRule"]["spec"] == {"groups": groups}


def test_the_pod_monitor_scrapes_the_port_of_the_container_and_names_the_job() -> None:
    monitor = rendered(*EVERYTHING)["PodMonitor"]["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    (container,) = pod(*EVERYTHING)["containers"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    assert endpoint["authorization"]["credentials"] == {"name": "agentprm-metrics", "key": "token"}
    labels = rendered(*EVERYTHING)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels[monitor["jobLabel"]] == "agentprm"


def test_probes_and_monitor_speak_as_the_service_does() -> None:
    def schemes(*values: str) -> set[str]:
        (container,) = pod(*values)["containers"]
        return {container[probe]["httpGet"]["scheme"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}

    assert schemes(*DEFAULTS) == {"HTTP"}
    assert schemes(*EVERYTHING) == {"HTTPS"}
    (endpoint,) = rendered(*EVERYTHING)["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("settings.PORT=81", "PORT"),
        ("settings.lower=1", "lower"),
        ("image.tag=latest", "tag"),
        ("replica=3", "replica"),
        ("terminationGracePeriodSeconds=20", "terminationGracePeriodSeconds"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, complaint: str) -> None:
    how = "--set-string" if value.startswith(("settings", "image")) else "--set"
    done = helm("template", "agentprm", str(CHART), how, value)
    assert done.returncode != 0
    assert complaint in done.stderr
