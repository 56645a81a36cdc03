"""Metrics and labels that a PromQL query names, and those that the service and the rules expose."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.prometheus import FILES
from tests.service.echo_app import serving

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted((FILES / "rules").glob("*.yml"))
OF_EVERY_TARGET = {"up": set[str](), "ALERTS": {"alertname", "alertstate"}}
ONLY_WITH_A_GPU = {"agentprm_gpu_memory_bytes": {"device", "kind"}}
ADDED_BY_PROMETHEUS = {"job", "instance"}
WORDS = {"and", "or", "unless", "by", "on", "bool", "offset", "without", "ignoring", "group_left", "group_right"}

Labels = dict[str, set[str]]


def metrics_in(expression: str) -> set[str]:
    """Returns every name that is no function, aggregation, keyword or label."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return set(names) - WORDS


def matchers_in(expression: str) -> list[tuple[str, str, str]]:
    """Returns metric, label and value of every matcher."""
    return [
        (metric, label, value)
        for metric, body in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expression)
        for label, value in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', body)
    ]


async def exposed() -> tuple[Labels, Labels]:
    """Returns the labels of each metric and the bucket edges of each histogram, with a model loaded."""
    async with serving() as client:
        text = (await client.get("/metrics")).text
    labels: Labels = {name: set() for name in re.findall(r"^# TYPE (\S+) (?:gauge|counter)$", text, re.MULTILINE)}
    edges: Labels = defaultdict(set)
    for name, body in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="([^"]*)"', body))
        labels.setdefault(name, set()).update(found)
        if "le" in found:
            edges[name].add(found["le"])
    return labels | ONLY_WITH_A_GPU, edges


def rules(kind: str) -> list[dict[str, Any]]:
    """Returns the rules of all files; ``kind`` is ``record`` or ``alert``."""
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def assert_asks_for_what_is_there(where: str, expression: str, labels: Labels, edges: Labels) -> None:
    known = {**labels, **OF_EVERY_TARGET}
    recorded = {rule["record"] for rule in rules("record")}
    for metric in metrics_in(expression):
        assert metric in known or metric in recorded, f"{where}: nothing is called {metric}"
    for metric, label, value in matchers_in(expression):
        if metric in known:
            assert label in known[metric] | ADDED_BY_PROMETHEUS, f"{where}: {metric} has no label {label}"
        if label == "le":
            assert value in edges[metric], f"{where}: {value} is no edge of {metric}"


def promtool(*arguments: str | Path) -> None:
    """Asserts that promtool succeeds; skips the test where it is not installed."""
    try:
        done = subprocess.run(
            ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=100
        )
    except FileNotFoundError:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    assert done.returncode == 0, done.stdout + done.stderr
