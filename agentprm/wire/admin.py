"""Bodies of /admin."""

from pydantic import Field

from agentprm.wire.fields import Body, Name


class ModelReference(Body):
    """Body of `/admin/load` and `/admin/unload`."""

    model: Name = Field(description="Alias, name or `name@version`.")


class AliasTarget(Body):
    """Body of `/admin/alias`."""

    alias: Name
    model: Name = Field(description="The model that the alias is to point to: alias, name or `name@version`.")
