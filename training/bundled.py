"""Names of the bundled checkpoints and the store that holds them."""

from pathlib import Path

STORE = Path(__file__).parents[1] / "model_store" / "checkpoints"
AGENTPRM, ORM = "textcraft-demo", "textcraft-demo-orm"
