"""Size of a JSON body beyond its bytes: the number of its values and objects, counted before it is parsed.

Parsing and validation cost by the value, not by the byte: 4 MiB hold two million zeros. A text inside a value costs
next to nothing, however long it is. Both bounds lie above what 4 MiB of real trajectories hold, and a body at them is
validated in some 50 ms.
"""

from typing import Final, Literal

from agentprm.errors import TooLong

MAX_VALUES: Final = 131_072
"""Most JSON values of a body: 64 items of 146 steps, each with a tool call and its result (14 values)."""
MAX_OBJECTS: Final = 24_576
"""Most JSON objects of a body: 64 items of 384 steps. An object costs some eight times as much as a number."""
MAX_DEPTH: Final = 200
"""Deepest nesting of the arguments of a tool call, as deep as the parser lets a body nest."""

_PIECE: Final = 64 * 1024  # bytes that are counted at once: it bounds the memory that counting takes


class JSONSize:
    """Counts the values and objects of a JSON text that arrives in pieces. A text that is no JSON gets any number.

    A comma stands for one value and an opening bracket for another. Neither counts within a string.
    """

    def __init__(self) -> None:
        self.values = 0
        self.objects = 0
        self._within_string: Literal[0, 1] = 0
        self._unfinished = b""  # a backslash at the end of a piece: what it escapes is yet to come

    def add(self, text: bytes) -> None:
        """Counts one more piece.

        Raises:
            TooLong: the text holds more than ``MAX_VALUES`` or ``MAX_OBJECTS`` by now.
        """
        for start in range(0, len(text), _PIECE):
            self._count(text[start : start + _PIECE])
            for what, number, limit in (("values", self.values, MAX_VALUES), ("objects", self.objects, MAX_OBJECTS)):
                if number > limit:
                    raise TooLong(f"the request holds more than {limit} JSON {what}", details={"limit": limit})

    def add_whole(self, text: bytes) -> None:
        """Counts a text of its own, such as the arguments of a tool call, as ``add`` does."""
        self._within_string, self._unfinished = 0, b""
        self.add(text)

    def _count(self, text: bytes) -> None:
        unescaped = self._without_escapes(text)
        parts = unescaped.split(b'"')
        outside = b"".join(parts[self._within_string :: 2])
        if len(parts) % 2 == 0:  # an odd number of quotes
            self._within_string = 0 if self._within_string else 1
        objects = outside.count(b"{")
        self.objects += objects
        self.values += objects + outside.count(b"[") + outside.count(b",")

    def _without_escapes(self, text: bytes) -> bytes:
        """Returns the text without escaped quotes and backslashes, so that each quote left begins or ends a string."""
        if b"\\" not in text and not self._unfinished:
            return text
        text = (self._unfinished + text).replace(b"\\\\", b"").replace(b'\\"', b"")
        self._unfinished = b"\\" if text.endswith(b"\\") else b""
        return text.removesuffix(b"\\")
