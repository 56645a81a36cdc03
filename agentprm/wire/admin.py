"""Bodies of /admin."""

from pydantic import Field

from agentprm.wire.fields import Body, NonEmpty


class ModelReference(Body):
    """Body of `/admin/load` and `/admin/unload`."""

    model: NonEmpty = Field(description="Alias, name or `name@version`.")


class AliasTarget(Body):
    """Body of `/admin/alias`."""

    alias: NonEmpty
    model: NonEmpty = Field(description="The model that the alias is to point to: alias, name or `name@version`.")
