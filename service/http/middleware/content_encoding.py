"""Decoding of compressed bodies, piece by piece, so that a small body that swells costs no more than the limit."""

import zlib
from collections.abc import Iterator
from typing import Final

from agentprm.errors import InvalidRequest, UnsupportedMediaType

PIECE: Final = 64 * 1024
NAMED: Final = ("br", "compress", "deflate", "zstd")
"""Encodings that an error names. Any other name is the caller's text."""
_GZIP: Final = 16 + zlib.MAX_WBITS


class Unchanged:
    """A body that is not encoded."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> None:
        pass


class Gunzip:
    """A body in gzip."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yields what the data decodes to, at most ``PIECE`` bytes at a time.

        Raises:
            InvalidRequest: it is not gzip, or goes on after the end of the stream.
        """
        full = True
        while data or full:
            try:
                piece = self._stream.decompress(data, PIECE)
            except zlib.error:
                raise self._not_gzip() from None
            if self._stream.unused_data:
                raise self._not_gzip()
            data, full = self._stream.unconsumed_tail, len(piece) == PIECE
            yield piece

    def end(self) -> None:
        """Raises InvalidRequest unless the stream has ended."""
        if not self._stream.eof:
            raise self._not_gzip()

    def _not_gzip(self) -> InvalidRequest:
        return InvalidRequest("the body is not one whole gzip stream, as its content-encoding says")


def decoder(encoding: bytes) -> Unchanged | Gunzip:
    """Returns the decoder for a ``content-encoding``.

    Raises:
        UnsupportedMediaType: the service does not read this encoding.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return Unchanged()
    if name in ("gzip", "x-gzip"):
        return Gunzip()
    named = name if name in NAMED else "this one"
    raise UnsupportedMediaType(
        f"content-encoding may be gzip or absent, not {named}", details={"content_encodings": ["gzip"]}
    )
