"""Look up which predictions are captured, and keep the index that spares reading them again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from truthloop.ports import Objects
from truthloop.versions.captures import (
    Lookup,
    capture_prefix,
    index_lines,
    index_prefix,
    read_segment,
    segment_key,
)
from truthloop.versions.dataset import ObjectInfo


@dataclass(frozen=True)
class Segmenting:
    """When segments are written.

    Attributes
    ----------
    from_objects, from_bytes : int
        A tail of fewer capture objects, with fewer bytes, is read again each time and not indexed: a segment
        for each look would make more objects than it spares reading.
    segment_bytes, read_bytes : int
        A segment is written when it has this size, or when so much was read for it: a function that runs out
        of time loses no more than that.
    """

    from_objects: int = 200
    from_bytes: int = 32 * 1024 * 1024
    segment_bytes: int = 4 * 1024 * 1024
    read_bytes: int = 256 * 1024 * 1024


SEGMENTING = Segmenting()


def find_captures(
    objects: Objects, endpoint: str, wanted: Iterable[str], segmenting: Segmenting = SEGMENTING
) -> Lookup:
    """Find the capture objects that hold the wanted inference ids.

    Segments are streamed, then the capture objects that no segment covers. A capture object that was deleted
    holds nothing, whatever the index says.

    Parameters
    ----------
    objects : Objects
        The data bucket.
    endpoint : str
        The endpoint's name.
    wanted : Iterable[str]
        Inference ids; memory grows with them and with the number of capture objects.
    segmenting : Segmenting
        When segments are written.
    """
    lookup = Lookup(wanted)
    uncovered = {info.key: info for info in objects.list(capture_prefix(endpoint))}
    there = frozenset(uncovered)
    for key, lines in objects.lines_of_each(objects.list(index_prefix(endpoint))):
        for indexed in read_segment(key, lines):
            if indexed.capture in there:
                uncovered.pop(indexed.capture, None)
                lookup.note(indexed)
    _index(objects, endpoint, list(uncovered.values()), lookup, segmenting)
    return lookup


def _index(
    objects: Objects, endpoint: str, uncovered: list[ObjectInfo], lookup: Lookup, segmenting: Segmenting
) -> None:
    sizes = {info.key: info.size for info in uncovered}
    worthwhile = len(uncovered) >= segmenting.from_objects or sum(sizes.values()) >= segmenting.from_bytes
    segment, read = bytearray(), 0
    for key, lines in objects.lines_of_each(uncovered):
        for indexed in index_lines(key, lines):
            lookup.note(indexed)
            if worthwhile:
                segment += indexed.to_line()
        read += sizes[key]
        if len(segment) >= segmenting.segment_bytes or (segment and read >= segmenting.read_bytes):
            _write(objects, endpoint, bytes(segment))
            segment, read = bytearray(), 0
    if segment:
        _write(objects, endpoint, bytes(segment))


def _write(objects: Objects, endpoint: str, segment: bytes) -> None:
    objects.put_once(segment_key(endpoint, segment), segment)
