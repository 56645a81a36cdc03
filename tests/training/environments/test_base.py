from pathlib import Path

ROOT = Path(__file__).parents[3]
USERS = {"training/demo.py", "training/study/textcraft.py", "training/environments/registry.py"}


def test_only_textcraft_itself_the_registry_and_the_demo_know_textcraft() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "training").rglob("*.py")}
    users = {name for name, path in files.items() if "environments.textcraft" in path.read_text(encoding="utf-8")}
    assert {name for name in users if not name.startswith("training/environments/textcraft/")} == USERS
