"""``python -m deploy.grafana.generate`` writes the dashboards as the JSON files that Grafana reads."""

import json
from pathlib import Path
from typing import Final

from deploy.grafana.engine import ENGINE
from deploy.grafana.scores import SCORES
from deploy.grafana.service import SERVICE

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def texts() -> dict[str, str]:
    """Returns the text of each file by its name."""
    return {
        f"{dashboard.name}.json": json.dumps(dashboard.as_json(), indent=2, ensure_ascii=False) + "\n"
        for dashboard in (SERVICE, ENGINE, SCORES)
    }


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in texts().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
