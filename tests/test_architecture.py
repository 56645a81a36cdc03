"""The arrows of the house: who may import whom. docs/architecture.md draws what this table says."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agentprm", "model_store", "service", "training")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}

INTERNAL = {
    "agentprm": {"agentprm"},
    "model_store": {"agentprm.errors", "agentprm.types", "model_store"},
    "training": {"agentprm.errors", "agentprm.types", "model_store", "training"},
    "service": {"agentprm", "model_store", "service"},
    "service.scorer": {
        "agentprm",
        "service.batcher",
        "service.score_cache.contract",
        "service.score_cache.keys",
        "service.scores",
        "service.sequences",
        "service.work",
    },
    "service.scores": {"agentprm.errors", "agentprm.types", "service.fair_queue"},
    "service.judge_scorer": {
        "agentprm",
        "service.generation.calls",
        "service.generation.judge",
        "service.score_cache.contract",
        "service.score_cache.keys",
        "service.scores",
    },
    "service.generation": {
        "agentprm",
        "model_store.judge",
        "model_store.manifest",
        "service.admission",
        "service.fair_queue",
        "service.generation",
        "service.scores",
    },
    "service.sequences": {"agentprm", "model_store.render", "service.score_cache.keys"},
    "service.batcher": {
        "agentprm.errors",
        "service.admission",
        "service.fair_queue",
        "service.faults",
        "service.work",
    },
    "service.admission": {"agentprm.errors", "service.fair_queue"},
    "service.faults": {"agentprm.errors"},
    "service.work": {"agentprm.errors", "service.fair_queue"},
    "service.score_cache": {"agentprm.errors", "service.score_cache"},
    "service.score_cache.__main__": {
        "agentprm.errors",
        "model_store.manifest",
        "model_store.store",
        "service.score_cache",
        "service.settings",
    },
    "service.fair_queue": set[str](),
    "service.engine": {
        "model_store",
        "service.attention",
        "service.joined_kv",
        "service.memory",
        "service.rows",
        "service.prefix_cache",
    },
    "service.engine_choice": {
        "agentprm.errors",
        "model_store",
        "service.engine",
        "service.memory",
        "service.packed_linear",
    },
    "service.workers": {
        "agentprm.errors",
        "model_store.quantise",
        "model_store.store",
        "service.engine",
        "service.engine_choice",
        "service.faults",
        "service.logs",
        "service.memory",
        "service.prefix_cache",
        "service.workers",
    },
    "service.workers.placement": set[str](),
    "service.packed_linear": set[str](),
    "service.attention": {"service.rows"},
    "service.joined_kv": set[str](),
    "service.rows": {"service.prefix_cache"},
    "service.prefix_cache": set[str](),
    "service.echo": set[str](),
    "service.api_keys": {"agentprm.errors", "service.rates"},
    "service.rates": {"service.score_cache.breaker", "service.score_cache.connections"},
    "service.door": {"agentprm.errors", "service.middleware", "service.rates"},
    "service.guard": {"agentprm.errors", "service.api_keys", "service.middleware"},
    "service.logs": set[str](),
    "service.memory": {"service.faults"},
    "service.settings": {"agentprm.errors"},
    "service.build": set[str](),
    "service.tracing": {"agentprm.wire", "service.build", "service.middleware", "service.settings", "service.tracing"},
    "service.metrics": {
        "agentprm.errors",
        "agentprm.types",
        "service.batcher",
        "service.build",
        "service.metrics",
        "service.prefix_cache",
        "service.score_cache.contract",
        "service.scores",
        "service.work",
    },
}
"""What a module or package may import from this repository; the longest matching name decides."""

EXTERNAL = {
    "torch": {
        "model_store.model",
        "model_store.heads",
        "model_store.head_loading",
        "model_store.log_ratio",
        "model_store.quantise",
        "model_store.tensors",
        "model_store.foreign",
        "service.engine",
        "service.engine_choice",
        "service.attention",
        "service.joined_kv",
        "service.packed_linear",
        "service.memory",
        "service.workers.worker",
        "training",
    },
    "transformers": {
        "model_store.model",
        "model_store.head_loading",
        "model_store.log_ratio",
        "model_store.foreign",
        "service.attention",
        "training",
    },
    "tokenizers": {
        "model_store.render",
        "model_store.runs",
        "model_store.foreign",
        "model_store.commands",
        "training.tokenizer",
        "training.demo",
    },
    "huggingface_hub": {"model_store.foreign.hub", "service.generation.server"},
    "httpx2": {"service.generation.server"},
    "redis": {"service.score_cache.connections"},
    "prometheus_client": {"service.metrics"},
    "opentelemetry": {"service.tracing"},
    "fastapi_offline": {"service.app"},
    "fastapi": {"service.app", "service.api", "service.admin", "service.refusals"},
    "starlette": {"service.refusals"},
    "pydantic": {"agentprm.wire", "service.settings", "service.generation.replies"},
    "pydantic_settings": {"service.settings"},
    "httpx": {"agentprm"},
    "os.environ": {"service.settings", "service.workers.worker"},
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_a_file_holds_one_idea_in_at_most_300_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
