"""Keys of scores: one per end of a step.

    agentprm:cb20a72d987347fe:{0Yp4uB7W3mE}:J8kz3nF0wq1Xh5s2VbQeLg
    namespace checkpoint       task          everything up to the step's end

The last part hashes the checkpoint's digest, the render version, the dtype and every token up to the one at which the
score is read. So the key covers all that could change a score, and a trajectory that grew by a step has one new key.
The other parts are for Redis: the scores of a namespace or a checkpoint share a beginning, and the braces keep a task's
keys on one node of a cluster.
"""

import struct
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

Key = bytes

FORMAT: Final = 2
"""Version of keys and values together. Scores of another version are never read."""
_HASH_BYTES: Final = 16
_TAG_BYTES: Final = 8


class KeyScope:
    """Makes the keys of one checkpoint as it is served. Equal keys mean equal scores."""

    def __init__(self, namespace: str, digest: str, render_version: int, dtype: str) -> None:
        self._prefix = checkpoint_prefix(namespace, digest)
        self._seed = blake2b(
            "\0".join((str(FORMAT), digest, str(render_version), dtype)).encode(), digest_size=_HASH_BYTES
        )

    def begin(self, task_token_ids: Sequence[int]) -> "KeyChain":
        """Starts the chain of a trajectory. ``task_token_ids`` are the tokens before the first observation."""
        hashed = self._seed.copy()
        hashed.update(_packed(task_token_ids))
        return KeyChain(self._tagged(hashed), hashed)

    def begin_text(self, task: bytes) -> "KeyChain":
        """Starts the chain of a chat without any tokens. ``task`` names its task; it is told in the tag alone."""
        hashed = self._seed.copy()
        hashed.update(task)
        return KeyChain(self._tagged(hashed), self._seed.copy())

    def _tagged(self, hashed: "blake2b") -> bytes:
        return self._prefix + b"{" + _text(hashed.digest()[:_TAG_BYTES]) + b"}:"


class KeyChain:
    """A hash of all tokens so far. ``extend`` it to the end of a step and read its ``key`` there."""

    def __init__(self, prefix: bytes, hashed: "blake2b") -> None:
        self._prefix = prefix
        self._hashed = hashed

    def extend(self, token_ids: Sequence[int]) -> "KeyChain":
        self._hashed.update(_packed(token_ids))
        return self

    def branch(self) -> "KeyChain":
        """Returns a copy, which is extended independently."""
        return KeyChain(self._prefix, self._hashed.copy())

    @property
    def key(self) -> Key:
        return self._prefix + _text(self._hashed.digest())


def namespace_prefix(namespace: str) -> bytes:
    """Returns the beginning of every key of a namespace."""
    return f"{namespace}:".encode()


def checkpoint_prefix(namespace: str, digest: str) -> bytes:
    """Returns the beginning of every key of a checkpoint. ``digest`` is the manifest's."""
    return namespace_prefix(namespace) + f"{short_digest(digest)}:".encode()


def short_digest(digest: str) -> str:
    """Returns the part of a digest that keys show: 64 bits, enough to tell the checkpoints of a store apart."""
    return digest.rpartition(":")[2][:16]


def _packed(token_ids: Sequence[int]) -> bytes:
    """Returns four bytes per token, so that different sequences of tokens are different bytes."""
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


def _text(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")
