"""``python -m deploy.grafana.generate`` writes the dashboards that Grafana is given."""

import json
from pathlib import Path
from typing import Final

from deploy.grafana.engine import ENGINE
from deploy.grafana.scores import SCORES
from deploy.grafana.service import SERVICE

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def texts() -> dict[str, str]:
    """What each file holds, by its name."""
    return {
        f"{one.name}.json": json.dumps(one.as_json(), indent=2, ensure_ascii=False) + "\n"
        for one in (SERVICE, ENGINE, SCORES)
    }


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in texts().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
