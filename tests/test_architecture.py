"""Checks the imports of every module against the tables of ``tests/import_table.py``.

A module or package without a line in ``INTERNAL`` may import its own package only, so a new one fails until a line says
what it may use. docs/architecture.md draws the tables.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.import_table import EXTERNAL, INTERNAL, TORCHLESS

ROOT = Path(__file__).parents[1]
PACKAGES = ("agentprm", "model_store", "service", "training", "benchmarks", "testbed", "deploy", "docker", "tests")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


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
    """The line of the longest name that ``module`` is within; without one, the package that holds it."""
    scopes = [scope for scope in INTERNAL if within(module, {scope})]
    return INTERNAL[max(scopes, key=len)] if scopes else {module.rpartition(".")[0] or module}


def complaints(module: str, names: set[str]) -> list[str]:
    """One sentence for each import of ``names`` that ``module`` must not have."""
    wrong = [f"{module} must not import {name}" for name in sorted(names) if not allowed_inside(module, name)]
    for library, users in EXTERNAL.items():
        if any(within(name, {library}) for name in names) and not (within(module, users) or within(module, {"tests"})):
            wrong.append(f"{module} must not use {library}")
    if module in TORCHLESS and any(within(name, {"torch"}) for name in names):
        wrong.append(f"{module} must not use torch")
    return wrong


def allowed_inside(module: str, name: str) -> bool:
    return not within(name, set(PACKAGES)) or within(name, internal_rule(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    assert not complaints(module, imported_names(MODULES[module]))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("agentprm.client", "model_store.errors.CheckpointError"),
        ("agentprm.search.choosers", "agentprm.client.Client"),
        ("model_store.format.manifest", "torch"),
        ("model_store.text.renderer", "model_store.network.model.RewardModel"),
        ("service.engine.contract", "torch"),
        ("service.queue.batcher", "service.scoring.scorer.Scorer"),
        ("service.scoring.scorer", "service.metrics.Metrics"),
        ("service.http.routes.scores", "service.engine.prefix_engine.PrefixEngine"),
        ("service.access.api_keys", "fastapi.Request"),
        ("training.data.labels", "service.settings.Settings"),
        ("testbed.processes", "benchmarks.harness.conditions.ROOT"),
        ("deploy.grafana.panels", "service.metrics.Metrics"),
        ("service.newcomer.module", "service.settings.Settings"),
    ],
)
def test_a_wrong_import_is_complained_of(module: str, name: str) -> None:
    assert complaints(module, {name})


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_at_the_top_of_the_file(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = [
        node for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inside, f"{module}: import inside a function, line {inside[0].lineno}"


def test_modules_form_no_cycle() -> None:
    refuse_cycles(arrows_between_modules())


def test_packages_form_no_cycle() -> None:
    arrows: dict[str, set[str]] = {}
    for module, targets in arrows_between_modules().items():
        arrows.setdefault(package_of(module), set()).update(map(package_of, targets))
    refuse_cycles({package: targets - {package} for package, targets in arrows.items()})


def package_of(module: str) -> str:
    """The package of the second level, such as ``service.queue``, or the module itself if it is in none."""
    return ".".join(module.split(".")[:2])


@cache
def arrows_between_modules() -> dict[str, set[str]]:
    return {
        module: {other for other in MODULES if other != module and within_file(other, imported_names(path))}
        for module, path in MODULES.items()
        if not within(module, {"tests"})
    }


def refuse_cycles(arrows: dict[str, set[str]]) -> None:
    left = dict(arrows)
    while left:
        leaves = [name for name, targets in left.items() if not targets & left.keys()]
        assert leaves, f"a cycle among {sorted(left)}"
        for name in leaves:
            del left[name]


def within_file(module: str, names: set[str]) -> bool:
    """Returns whether ``names`` reach into ``module`` itself, not into a module below it."""
    return any(name == module or (name.rpartition(".")[0] == module and name not in MODULES) for name in names)


def test_importing_the_client_pulls_in_no_server_and_no_model() -> None:
    heavy = "torch transformers tokenizers fastapi starlette redis prometheus_client numpy"
    code = f"import sys, agentprm; sys.exit(' '.join(set('{heavy}'.split()) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_a_cycle_is_found() -> None:
    with pytest.raises(AssertionError, match="a cycle among"):
        refuse_cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines_of(node: ast.stmt) -> int:
    """Number of lines of a function, without decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return lines_of(function) - (lines_of(function.body[0]) if ast.get_docstring(function) else 0)


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_over_45_lines(module: str) -> None:
    assert not {function.name for function in functions_of(MODULES[module]) if lines_of(function) > 45}


def test_nine_functions_of_ten_have_at_most_16_lines() -> None:
    product = [path for module, path in MODULES.items() if not within(module, {"tests"})]
    ordered = sorted(lines_of_code(function) for path in product for function in functions_of(path))
    assert ordered[len(ordered) * 9 // 10] <= 16


@pytest.mark.parametrize("module", MODULES)
def test_a_file_holds_one_idea_in_at_most_300_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 300
