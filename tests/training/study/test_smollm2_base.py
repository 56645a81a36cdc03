"""The wheel that the base model comes from is checked before it is converted."""

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentprm.errors import AgentPRMError
from training.study.smollm2_base import MEMBER, app


def converted(tmp_path: Path, member: str) -> None:
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, b"no model")
    CliRunner().invoke(app, [str(wheel), str(tmp_path / "base")], catch_exceptions=False)


@pytest.mark.parametrize(("member", "complaint"), [("other.gguf", "does not hold"), (MEMBER, "has the SHA-256 digest")])
def test_a_wheel_with_another_model_is_refused_and_leaves_nothing(tmp_path: Path, member: str, complaint: str) -> None:
    with pytest.raises(AgentPRMError, match=complaint):
        converted(tmp_path, member)
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]


def test_an_existing_directory_is_kept(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    wheel = tmp_path / "a.whl"
    wheel.touch()
    assert CliRunner().invoke(app, [str(wheel), str(tmp_path / "base")]).exit_code == 2
