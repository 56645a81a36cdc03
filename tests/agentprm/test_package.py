"""The public names of the package, and what importing it costs."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import agentprm
from agentprm import AsyncClient, Client, errors


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def methods(client: type[Any]) -> dict[str, list[str]]:
        public = {
            name: member for name, member in vars(client).items() if callable(member) and not name.startswith("_")
        }
        return {name: list(inspect.signature(method).parameters) for name, method in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert set(methods(Client)) >= {"score", "rank", "score_step", "score_trajectory", "rank_actions", "models"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "fastapi", "starlette", "redis", "prometheus_client"}
    program = f"import sys, agentprm; print(sorted({heavy} & set(sys.modules)))"
    root = Path(agentprm.__file__).parent.parent
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, timeout=100)
    assert done.stdout == "[]\n"


def test_every_exported_name_exists_once() -> None:
    assert len(set(agentprm.__all__)) == len(agentprm.__all__)
    assert all(hasattr(agentprm, name) for name in agentprm.__all__)


def test_exactly_the_errors_of_requests_are_exported() -> None:
    public = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and not name.startswith("_")
    }
    exported = {name for name in agentprm.__all__ if isinstance(getattr(agentprm, name), type)}
    assert {name for name in exported if issubclass(getattr(agentprm, name), Exception)} == public
    assert all(getattr(agentprm, name) is getattr(errors, name) for name in public)
