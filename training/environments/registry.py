"""Worlds by the names that commands give them. A world is imported when it is asked for: it brings its own packages."""

import pkgutil
from typing import Any, Final, Literal

from agentprm.errors import AgentPRMError
from training.environments.base import World

WorldName = Literal["babyai", "textcraft", "textcraft-words"]

_PLACES: Final[dict[WorldName, str]] = {
    "babyai": "training.environments.babyai.worlds:BABYAI",
    "textcraft": "training.environments.textcraft.worlds:TEXTCRAFT",
    "textcraft-words": "training.environments.textcraft.worlds:IN_WORDS",
}


def load_world(name: WorldName) -> World[Any, Any]:
    """Returns a world.

    Raises:
        AgentPRMError: a package that it needs is not installed.
    """
    try:
        world: World[Any, Any] = pkgutil.resolve_name(_PLACES[name])
    except ModuleNotFoundError as error:
        raise AgentPRMError(f"{name} needs the package {error.name}; install the extra `environments`") from error
    return world
