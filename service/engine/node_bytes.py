"""Host memory of a prefix cache beside its keys and values, so that the limit bounds all that the cache takes up."""

from typing import Final

NODE_BYTES: Final = 1408
"""Host memory of a node and its value, less what grows with its tokens: 1,000 bytes of Python objects and of a
tensor's header, and the usual holes between tensors. ``python -m tests.stress.prefix_cache_memory`` measures it."""
TOKEN_ID_BYTES: Final = 40
"""Host memory of a token id: an integer and its place in a tuple."""
