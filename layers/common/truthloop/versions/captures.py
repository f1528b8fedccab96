"""The capture index: which inference ids the objects of data capture hold, so that each is read once.

A captured record may hold an image of megabytes where the question is only whether its id is there. Index
objects are segments of lines ``{"capture": "<key>", "ids": ["…"]}``; all lines of one capture object are in
one segment, so a segment that was written covers its capture objects whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from truthloop.errors import DatasetInvalid

_IDS_PER_LINE = 10_000


@dataclass(frozen=True, slots=True)
class Indexed:
    """Some inference ids that one capture object holds."""

    capture: str
    ids: tuple[str, ...]

    def to_line(self) -> bytes:
        """Return the line of a segment."""
        content = {"capture": self.capture, "ids": self.ids}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def read_ids(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the inference ids of the records of a capture object that can be trained on.

    These are the records that captured their input. A line that is no capture record is passed over, as the
    training container passes it over: it may have been cut off, and nothing will ever mend it.
    """
    for line in lines:
        try:
            record = json.loads(line)
            about, captured = record["eventMetadata"], record["captureData"].get("endpointInput")
            identifier = about.get("inferenceId") or about["eventId"]
            has_input = captured is not None and isinstance(captured["data"], str) and captured["data"] != ""
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if has_input and isinstance(identifier, str):
            yield identifier


def index_lines(capture: str, lines: Iterable[bytes]) -> Iterator[Indexed]:
    """Return what the index says about one capture object; at least one line, also for an empty object."""
    ids = list(dict.fromkeys(read_ids(lines)))
    for start in range(0, max(1, len(ids)), _IDS_PER_LINE):
        yield Indexed(capture, tuple(ids[start : start + _IDS_PER_LINE]))


def read_segment(key: str, lines: Iterable[bytes]) -> Iterator[Indexed]:
    """Read a segment.

    Raises
    ------
    DatasetInvalid
        When a line is not what the index's writer writes.
    """
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            capture, ids = str(record["capture"]), tuple(map(_text, record["ids"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetInvalid(
                f"line {number} of {key} is no line of the capture index ({error!r}); delete the object and "
                "it is made again"
            ) from error
        yield Indexed(capture, ids)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("an id is text")
    return value


def segment_key(endpoint: str, content: bytes) -> str:
    """Return the key of a segment: the same content is the same object."""
    return f"{index_prefix(endpoint)}{hashlib.sha256(content).hexdigest()}.jsonl"


def index_prefix(endpoint: str) -> str:
    """Return the prefix of an endpoint's segments."""
    return f"capture-index/{endpoint}/"


def capture_prefix(endpoint: str) -> str:
    """Return the prefix of an endpoint's data capture."""
    return f"capture/{endpoint}/"


class Lookup:
    """Which capture objects hold the wanted inference ids; memory grows with what is wanted only.

    Parameters
    ----------
    wanted : Iterable[str]
        Inference ids.
    """

    def __init__(self, wanted: Iterable[str]) -> None:
        self._found: dict[str, tuple[str, ...]] = dict.fromkeys(wanted, ())

    def note(self, indexed: Indexed) -> None:
        """Take in what is known of a capture object."""
        for identifier in indexed.ids:
            known = self._found.get(identifier)
            if known is not None and indexed.capture not in known:
                self._found[identifier] = (*known, indexed.capture)

    def __contains__(self, identifier: str) -> bool:
        return bool(self._found.get(identifier))

    def captures_of(self, identifiers: Collection[str]) -> tuple[str, ...]:
        """Return the keys of all capture objects that hold one of the ids, sorted."""
        return tuple(sorted({key for identifier in identifiers for key in self._found.get(identifier, ())}))
