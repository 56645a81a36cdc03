"""The errors of checkpoints: missing, corrupt, invalid or too large. No client of the service sees one."""

from agentprm.errors import AgentPRMError


class CheckpointError(AgentPRMError):
    """A checkpoint that cannot be served."""


class CheckpointNotFound(CheckpointError):
    """No such name, version or alias in the store."""


class CheckpointCorrupt(CheckpointError):
    """The content does not hash to the digest, or a file is missing, unsafe or unreadable."""


class ManifestInvalid(CheckpointError):
    """``prm.json`` lacks a field, holds a wrong one or does not fit the weights beside it."""


class CheckpointTooLarge(CheckpointError):
    """The weights do not fit into the device's free memory."""
