"""What an engine may raise that is more than a failed batch."""

from agentprm.errors import AgentPRMError


class DeviceLost(AgentPRMError):
    """The device cannot compute any more, and only a new process can use it again."""


class OutOfMemory(AgentPRMError):
    """The device has no room for this batch. What the engine held for later has been given up."""
