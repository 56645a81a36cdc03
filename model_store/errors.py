"""Errors of checkpoints; no client of the service gets one.

AgentPRMError
└── CheckpointError             a checkpoint that cannot be served
    ├── CheckpointNotFound      no such name, version or alias in the store
    ├── CheckpointCorrupt       its content does not hash to its digest, or a file is missing
    ├── ManifestInvalid         ``prm.json`` lacks a field or holds a wrong one
    └── CheckpointTooLarge      its weights do not fit into the device's free memory
"""

from agentprm.errors import AgentPRMError


class CheckpointError(AgentPRMError):
    """A checkpoint that cannot be served."""


class CheckpointNotFound(CheckpointError):
    """No such name, version or alias in the store."""


class CheckpointCorrupt(CheckpointError):
    """The content does not hash to the digest, or a file is missing, unsafe, unreadable or does not fit the rest."""


class ManifestInvalid(CheckpointError):
    """``prm.json`` lacks a field, holds a wrong one or does not fit the checkpoint's weights."""


class CheckpointTooLarge(CheckpointError):
    """The weights do not fit into the device's free memory."""


def one_line(text: str, limit: int = 80) -> str:
    """Text of a file or another library, made fit for a sentence: escaped, cut, on one line."""
    return " ".join(text.split()).encode("unicode_escape").decode()[:limit]
