"""The table of limits in ``docs/security.md`` is the one in the code."""

from pathlib import Path

from service.http.limits import LIMITS, Limit
from service.settings import PREFIX, Settings

SECURITY = Path(__file__).parents[3] / "docs" / "security.md"
HEAD = ("bounded", "limit", "setting", "beyond it")


def test_the_documentation_shows_every_limit_of_the_edge() -> None:
    table = SECURITY.read_text(encoding="utf-8").partition("## Limits of the edge\n\n")[2].partition("\n\n")[0]
    rows = [HEAD, ("---",) * len(HEAD), *map(row, LIMITS)]
    assert table == "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def test_a_limit_is_either_fixed_or_a_setting() -> None:
    assert [limit for limit in LIMITS if bool(limit.amount) == bool(limit.setting)] == []


def row(limit: Limit) -> tuple[str, str, str, str]:
    if not limit.setting:
        return limit.bounded, limit.amount, "", limit.answer
    default = Settings.model_fields[limit.setting].default
    return limit.bounded, f"{default:,}", f"`{PREFIX}{limit.setting.upper()}`", limit.answer
