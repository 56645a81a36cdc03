"""The arrows of the house: who may import whom. docs/architecture.md draws what this table says."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agentprm", "model_store", "service", "training", "benchmarks", "testbed", "deploy")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}

INTERNAL: dict[str, set[str]] = {
    "agentprm.types": set(),
    "agentprm.errors": set(),
    "agentprm.wire": {"agentprm.errors", "agentprm.wire"},
    "agentprm.messages": {"agentprm.errors", "agentprm.types", "agentprm.wire"},
    "agentprm.search": {"agentprm.search", "agentprm.types"},
    "agentprm": {"agentprm"},
    "model_store.errors": {"agentprm.errors"},
    "model_store.format": {"agentprm.types", "model_store.errors", "model_store.format"},
    "model_store.text": {"agentprm.types", "model_store.errors", "model_store.format", "model_store.text"},
    "model_store.network": {"agentprm.errors", "model_store.errors", "model_store.format", "model_store.network"},
    "model_store.importers": {"agentprm.types", "model_store"},
    "model_store.commands": {"agentprm.errors", "agentprm.types", "model_store"},
    "model_store": {"agentprm.errors", "model_store"},
    "service.settings": {"agentprm.errors"},
    "service.logs": set(),
    "service.versions": set(),
    "service.redis_client": {"agentprm.errors", "service.redis_client"},
    "service.access": {"agentprm.errors", "service.access", "service.redis_client"},
    "service.score_cache": {"agentprm.errors", "service.redis_client", "service.score_cache"},
    "service.score_cache.__main__": {
        "agentprm.errors",
        "model_store.errors",
        "model_store.format",
        "service.score_cache",
        "service.settings",
    },
    "service.engine.contract": {"agentprm.errors"},
    "service.engine.prefix_cache": set(),
    "service.engine.row_plan": {"service.engine.prefix_cache"},
    "service.engine.joined_kv": set(),
    "service.engine.packed_linear": set(),
    "service.engine.echo": {"service.engine.contract"},
    "service.engine": {
        "agentprm.errors",
        "model_store.errors",
        "model_store.format",
        "model_store.network",
        "service.engine",
        "service.logs",
    },
    "service.engine.workers.placement": set(),
    "service.queue": {"agentprm.errors", "service.engine.contract", "service.queue"},
    "service.generation": {"agentprm", "model_store.format", "service.generation", "service.queue"},
    "service.scoring": {
        "agentprm.errors",
        "agentprm.types",
        "model_store.text",
        "service.generation",
        "service.queue",
        "service.score_cache.contract",
        "service.score_cache.keys",
        "service.scoring",
    },
    "service.metrics": {
        "agentprm.errors",
        "agentprm.types",
        "service.engine.prefix_cache",
        "service.metrics",
        "service.queue",
        "service.score_cache.contract",
        "service.scoring.observer",
        "service.scoring.results",
        "service.versions",
    },
    "service.models": {
        "agentprm",
        "model_store",
        "service.engine",
        "service.generation",
        "service.metrics",
        "service.models",
        "service.queue",
        "service.score_cache.contract",
        "service.score_cache.keys",
        "service.scoring",
        "service.settings",
    },
    "service.http.middleware.asgi": set(),
    "service.http.middleware": {"agentprm.errors", "service.access", "service.http.middleware"},
    "service.http": {
        "agentprm",
        "service.generation.policy",
        "service.http",
        "service.models",
        "service.queue",
        "service.scoring.results",
    },
    "service.tracing": {
        "agentprm.wire",
        "service.http.middleware.asgi",
        "service.settings",
        "service.tracing",
        "service.versions",
    },
    "service.lifecycle": {
        "service.access",
        "service.generation.policy",
        "service.models",
        "service.score_cache.contract",
    },
    "service.app": {"agentprm", "model_store", "service"},
    "service.__main__": {"agentprm.errors", "service"},
    "training.environments": {"agentprm.errors", "agentprm.types", "training.environments"},
    "training.rollouts": {"agentprm.errors", "agentprm.types", "training.environments", "training.rollouts"},
    "training.data": {"agentprm.errors", "agentprm.types", "model_store", "training.data", "training.rollouts"},
    "training.trainers": {"model_store", "training.data", "training.trainers"},
    "training.evaluation": {
        "agentprm.search",
        "agentprm.types",
        "model_store",
        "training.bundled",
        "training.environments",
        "training.evaluation",
        "training.rollouts",
    },
    "training": {"agentprm.errors", "agentprm.search", "agentprm.types", "model_store", "training"},
    "testbed": {"testbed"},
    "benchmarks.workloads": {"agentprm", "benchmarks.workloads", "model_store", "training"},
    "benchmarks": {"agentprm", "benchmarks", "model_store", "service", "testbed", "training"},
    "deploy.grafana": {"deploy.grafana"},
    "deploy.observe": {"agentprm", "deploy.observe", "service.settings", "testbed", "training"},
}
"""What a module or package may import from this repository; the longest matching name decides."""

EXTERNAL = {
    "torch": {"benchmarks", "model_store.importers", "model_store.network", "service.engine", "training"},
    "transformers": {
        "benchmarks",
        "model_store.importers",
        "model_store.network",
        "service.engine.row_attention",
        "training",
    },
    "tokenizers": {"benchmarks", "model_store.commands", "model_store.importers", "model_store.text", "training"},
    "huggingface_hub": {"model_store.importers.hub", "service.generation.server"},
    "httpx2": {"service.generation.server"},
    "redis": {"service.redis_client"},
    "prometheus_client": {"service.metrics"},
    "opentelemetry": {"service.tracing"},
    "fastapi": {"benchmarks", "service.app", "service.http"},
    "fastapi_offline": {"service.app"},
    "starlette": {"service.http.framework_errors"},
    "uvicorn": {"benchmarks", "service.__main__"},
    "typer": {"agentprm.cli", "model_store.__main__", "model_store.commands", "service", "training"},
    "jinja2": {"model_store.importers", "model_store.text"},
    "pydantic": {
        "agentprm.wire",
        "model_store.format",
        "service.generation.completions",
        "service.settings",
        "training.rollouts",
    },
    "pydantic_settings": {"service.settings"},
    "httpx": {"agentprm", "benchmarks", "deploy", "testbed"},
    "gymnasium": {"training.environments"},
    "os.environ": {"benchmarks", "service.engine.workers.worker", "service.settings", "testbed"},
}
"""Which modules or packages may touch a library; every other one may not."""


@cache
def imported_names(path: Path) -> set[str]:
    """Every module, or module.name, that a file imports; ``os.environ`` where it reads the environment."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            names.add("os.environ")
    return names


def within(name: str, scopes: set[str]) -> bool:
    return any(name == scope or name.startswith(f"{scope}.") for scope in scopes)


def internal_rule(module: str) -> set[str]:
    return INTERNAL[max((scope for scope in INTERNAL if within(module, {scope})), key=len)]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    for name in imported_names(MODULES[module]):
        if within(name, set(PACKAGES)):
            assert within(name, internal_rule(module)), f"{module} must not import {name}"
        for library, users in EXTERNAL.items():
            if within(name, {library}):
                assert within(module, users), f"{module} must not use {library}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_at_the_top_of_the_file(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [node for one in functions for node in ast.walk(one) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not inside, f"{module}: import inside a function, line {inside[0].lineno}"


def test_modules_form_no_cycle() -> None:
    arrows = {
        module: {other for other in MODULES if other != module and within_file(other, imported_names(path))}
        for module, path in MODULES.items()
    }
    left = dict(arrows)
    while left:
        leaves = [module for module, targets in left.items() if not targets & left.keys()]
        assert leaves, f"a cycle among {sorted(left)}"
        for module in leaves:
            del left[module]


def within_file(module: str, names: set[str]) -> bool:
    """Whether ``names`` reach into ``module`` itself, not into a module below it."""
    return any(name == module or (name.rpartition(".")[0] == module and name not in MODULES) for name in names)


def test_importing_the_client_pulls_in_no_server_and_no_model() -> None:
    heavy = "torch transformers tokenizers fastapi starlette redis prometheus_client numpy"
    code = f"import sys, agentprm; sys.exit(' '.join(set('{heavy}'.split()) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_a_file_holds_one_idea_in_at_most_300_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
