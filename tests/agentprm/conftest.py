import pytest

from agentprm import exchange as protocol
from tests.agentprm.scripted import ScriptedService


@pytest.fixture(params=["sync", "async"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ScriptedService:
    scripted = ScriptedService(request.param)
    monkeypatch.setattr(protocol, "monotonic", lambda: scripted.now)
    return scripted
