"""Compressed bodies, opened in pieces of a bounded size: what a remote packs into a kilobyte never becomes a gigabyte here.

Pure: bytes in, bytes out. How much is too much in all is for who takes the pieces.
"""

import zlib

PIECE_BYTES = 256 * 1024
# What we ask for, and how zlib is told to read it.
ACCEPTED = b"gzip, deflate"
_WINDOW_BITS = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}


class NotInflatable(Exception):
    """What came is not what its Content-Encoding says."""


class Inflating:
    """One compressed body on its way."""

    def __init__(self, encoding: bytes) -> None:
        """Raises NotInflatable for an encoding that was not asked for."""
        if encoding not in _WINDOW_BITS:
            raise NotInflatable("a Content-Encoding that was not asked for")
        self._is_deflate = encoding == b"deflate"
        self._window_bits = _WINDOW_BITS[encoding]
        self._opened: zlib._Decompress | None = None
        self._rest = b""
        self._may_have_more = False

    def take(self, data: bytes) -> bytes:
        """The next piece out of what came until now and `data`; empty once more has to come. Raises NotInflatable."""
        if not data and not self._rest and not self._may_have_more:
            return b""
        try:
            piece = self._opened_by(data).decompress(self._rest + data, PIECE_BYTES)
        except zlib.error as error:
            raise NotInflatable(f"its compressed body cannot be read: {error}") from None
        self._rest = self._opened_by(b"").unconsumed_tail
        self._may_have_more = len(piece) == PIECE_BYTES
        if self._opened_by(b"").unused_data:
            raise NotInflatable("something follows the end of its compressed body")
        return piece

    @property
    def is_whole(self) -> bool:
        """Whether the body may end here: after its last compressed byte, or before its first."""
        return self._opened is None or self._opened.eof

    def _opened_by(self, data: bytes) -> "zlib._Decompress":
        if self._opened is None:
            # "deflate" means zlib's format (RFC 9110, 8.4.1.2), and some servers send it without zlib's header.
            is_bare = self._is_deflate and data[0] & 0x0F != 8
            self._opened = zlib.decompressobj(-self._window_bits if is_bare else self._window_bits)
        return self._opened
