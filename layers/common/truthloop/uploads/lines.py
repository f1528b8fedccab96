"""Untrusted uploads as lines: format by suffix, gzip unpacked, limits kept, a chunk and a line in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from truthloop.errors import UploadRejected

BAD_GZIP = "BAD_GZIP"
NOT_SUPPORTED = "NOT_SUPPORTED"
TOO_LARGE = "TOO_LARGE"

MAXIMUM_OBJECT_BYTES = 128 * 1024 * 1024
MAXIMUM_LINES = 2_000_000
"""With the bytes: less than two minutes for the ingest function, which has five for a whole batch."""
MAXIMUM_LINE_BYTES = 64 * 1024

JSONL = "jsonl"
CSV = "csv"
_SUFFIX = ".gz"
_GZIP = 31  # zlib's wbits for a gzip member with its header and checksum
_PIECE = 256 * 1024
_SLICE = 16 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class UploadFormat:
    """What an upload's suffix says about its content: `records` is ``jsonl`` or ``csv``."""

    records: str
    gzipped: bool


class Line(NamedTuple):
    """One line of an upload, without its end; `content` is cut at the limit when `complete` is false.

    `number` counts from 1, `offset` is that of the first byte of `content`; both in the unpacked upload.
    """

    number: int
    offset: int
    content: bytes
    complete: bool = True


def format_of(key: str) -> UploadFormat:
    """Return the format of an upload by its key's suffix, in which case does not matter.

    Raises
    ------
    UploadRejected
        When the suffix is none that is read.
    """
    name = key.lower()
    inner = name.removesuffix(_SUFFIX)
    for records in (JSONL, CSV):
        if inner.endswith(f".{records}"):
            return UploadFormat(records, gzipped=inner != name)
    raise UploadRejected(
        NOT_SUPPORTED, "only *.jsonl, *.csv, *.jsonl.gz and *.csv.gz are read; the object stays in the inbox"
    )


def read_lines(chunks: Iterable[bytes], upload: UploadFormat, size: int) -> Iterator[Line]:
    """Read an upload's lines in bounded memory, however it is packed.

    Parameters
    ----------
    chunks : Iterable of bytes
        The object as it is stored.
    upload : UploadFormat
        What it holds.
    size : int
        Its bytes as stored.

    Raises
    ------
    UploadRejected
        When the object is beyond a limit or is no whole gzip file. Lines that were read before do not count:
        what is mended or split is uploaded again as a whole.
    """
    if size > MAXIMUM_OBJECT_BYTES:
        raise _too_large(f"the object has {size} bytes")
    if upload.gzipped:
        chunks = bounded(gunzip(chunks), MAXIMUM_OBJECT_BYTES)
    return split_lines(chunks)


def _too_large(what: str) -> UploadRejected:
    return UploadRejected(
        TOO_LARGE,
        f"{what}; split it into files of at most {MAXIMUM_OBJECT_BYTES} bytes and {MAXIMUM_LINES} lines, "
        "unpacked, and upload those",
    )


def bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Pass chunks on until there are more than `limit` bytes of them: then the upload is rejected."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise _too_large(f"the object has more than {limit} bytes unpacked")
        yield chunk


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack a gzip file of one or more members (RFC 1952, 2.2) in pieces of bounded size.

    Zeros after a member are padding, as they are for ``gzip``.

    Raises
    ------
    UploadRejected
        When the file is not gzip, fails a checksum or ends within a member.
    """
    member = zlib.decompressobj(_GZIP)
    for data in _sliced(chunks):
        rest = data
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                member = zlib.decompressobj(_GZIP)
            piece = _inflated(member, rest)
            if piece:
                yield piece
            rest = member.unused_data if member.eof else member.unconsumed_tail
    while not member.eof:
        # zlib may hold output back for which the last piece had no room.
        piece = _inflated(member, b"")
        if not piece:
            break
        yield piece
    if not member.eof:
        raise UploadRejected(BAD_GZIP, "the gzip file ends in the middle; upload it again")


def _sliced(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # What follows a member is copied, so a file of many tiny members would take time with the square of the
    # chunk's size.
    for chunk in chunks:
        for start in range(0, len(chunk), _SLICE):
            yield chunk[start : start + _SLICE]


def _inflated(member: zlib._Decompress, data: bytes) -> bytes:
    try:
        return member.decompress(data, _PIECE)
    except zlib.error as error:
        raise UploadRejected(BAD_GZIP, f"the object is no gzip file, or a broken one: {error}") from error


def split_lines(
    chunks: Iterable[bytes], limit: int = MAXIMUM_LINE_BYTES, most: int = MAXIMUM_LINES
) -> Iterator[Line]:
    r"""Split a stream into its lines without ever holding more than a chunk and `limit` bytes of one line.

    Blank lines are passed over but counted; ``\r\n`` ends a line as ``\n`` does; a byte order mark before the
    first line belongs to no line.

    Raises
    ------
    UploadRejected
        When there are more than `most` lines.
    """
    number, offset = 1, 0
    held, length = bytearray(), 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        last = pieces.pop()
        if pieces:
            if number + len(pieces) - 1 > most:
                raise _too_large(f"the object has more than {most} lines")
            held += pieces[0][: limit + len(_BOM) + 1]
            length += len(pieces[0])
            if line := _finish(number, offset, bytes(held), length, limit):
                yield line
            offset += length + 1
            for piece in pieces[1:]:
                number += 1
                if len(piece) > limit:
                    yield Line(number, offset, piece[:limit], complete=False)
                elif piece and not piece.isspace():
                    yield Line(number, offset, piece[:-1] if piece[-1] == 13 else piece)
                offset += len(piece) + 1
            number += 1
            held, length = bytearray(), 0
        held += last[: max(0, limit + len(_BOM) + 1 - len(held))]
        length += len(last)
    if length and number > most:
        raise _too_large(f"the object has more than {most} lines")
    if line := _finish(number, offset, bytes(held), length, limit):
        yield line


def _finish(number: int, offset: int, content: bytes, length: int, limit: int) -> Line | None:
    if offset == 0 and content.startswith(_BOM):
        content, offset, length = content[len(_BOM) :], offset + len(_BOM), length - len(_BOM)
    if length > limit:
        return Line(number, offset, content[:limit], complete=False)
    if not content or content.isspace():
        return None
    return Line(number, offset, content.removesuffix(b"\r"))
