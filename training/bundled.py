"""Names of the bundled checkpoints, and the store they are published in."""

from pathlib import Path

STORE = Path(__file__).parents[1] / "model_store" / "checkpoints"
AGENTPRM, ORM = "textcraft-demo", "textcraft-demo-orm"
