"""Chats of other APIs and libraries as the OpenAI chats that the client and the service take.

Each function takes the objects of a library or the dictionaries that it dumps, and imports nothing of it. What the
OpenAI form has no place for is refused with its place. What a function leaves out, its docstring names.
"""

from agentprm.chats.anthropic import from_anthropic, tools_from_anthropic
from agentprm.chats.langchain import from_langchain
from agentprm.chats.objects import from_objects
from agentprm.chats.responses import from_responses, tools_from_responses

__all__ = [
    "from_anthropic",
    "from_langchain",
    "from_objects",
    "from_responses",
    "tools_from_anthropic",
    "tools_from_responses",
]
