"""Lines on their way into one object: the first of them in memory, more on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO

from truthloop.errors import UploadRejected
from truthloop.uploads.lines import TOO_LARGE

MAXIMUM_SPOOL_BYTES = 1536 * 1024 * 1024
"""Twice what the largest upload of usual records becomes; two of them fit on the function's disk."""
_IN_MEMORY = 4 * 1024 * 1024
_HELD = 256 * 1024


@contextmanager
def spool() -> Iterator[Spool]:
    """Open a spool; what it has on disk is gone when it is left."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        yield Spool(file)


class Spool:
    """Collects what is written once it is whole; memory does not grow with it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = bytearray()
        self._spilt = 0

    def write(self, line: bytes) -> None:
        """Add a line.

        Raises
        ------
        UploadRejected
            When it has become more than an object may: a long key, which every line repeats, makes a large
            object of many short records.
        OSError
            When the disk is full.
        """
        self._held += line
        if len(self._held) >= _HELD:
            self._spill()

    def _spill(self) -> None:
        self._spilt += len(self._held)
        if self._spilt > MAXIMUM_SPOOL_BYTES:
            raise UploadRejected(
                TOO_LARGE,
                f"the object's records take more than {MAXIMUM_SPOOL_BYTES} bytes with where they came from; "
                "split it into smaller files and upload those",
            )
        self._file.write(self._held)
        self._held.clear()

    def content(self) -> IO[bytes]:
        """Return all of it, from the start."""
        self._spill()
        self._file.seek(0)
        return self._file
