"""Ground truth as statements: what one author said about one prediction or image, and its lines in files.

Which of several statements holds is decided in ``truthloop.versions.standing``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring as _quoted  # as JSON without escapes of what is not ASCII
from typing import Any

from truthloop.errors import DatasetInvalid

Record = tuple[str, str, int]
"""One record of an upload: key, version and line."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The record of an upload that a statement came from, as an accepted line keeps it.

    `line` counts from 1 and `byte_offset` from 0, in the unpacked content; `uploaded_at` is the upload's time
    as text.
    """

    key: str
    version_id: str
    line: int
    byte_offset: int
    uploaded_at: str

    @property
    def upload(self) -> tuple[str, str]:
        """Key and version of the uploaded object."""
        return self.key, self.version_id

    @property
    def record(self) -> Record:
        """Key, version and line: which record it is."""
        return self.key, self.version_id, self.line

    def to_json(self) -> dict[str, str | int]:
        """Return the ``origin`` of a line."""
        return {
            "key": self.key,
            "versionId": self.version_id,
            "line": self.line,
            "byteOffset": self.byte_offset,
            "uploadedAt": self.uploaded_at,
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """What one author said about one inference id, or about one uploaded image.

    `event_time` is UTC with microseconds, so that times compare as text; `sequencer` orders statements about
    the same instant: the object's own sequencer, left-padded, and the line. `image` is the key of a labelled
    example's image; its `inference_id` is then ``image:<key>``.
    """

    inference_id: str
    label: str
    event_time: str
    author: str | None
    source: str
    sequencer: str
    origin: Origin
    image: str | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """Sort key: the newest statement is the greatest. What follows the sequencer makes it total."""
        origin = self.origin
        return (
            self.event_time,
            self.sequencer,
            self.label,
            self.source,
            self.author or "",
            origin.uploaded_at,
            origin.key,
            origin.version_id,
        )

    def to_accepted_line(self) -> bytes:
        """Return the line of an accepted object, in Model Monitor's ground-truth format.

        Written out instead of dumped: every record of an upload of millions passes here.
        """
        author = "" if self.author is None else f',"author":{_quoted(self.author)}'
        image = "" if self.image is None else f',"image":{_quoted(self.image)}'
        origin = self.origin
        return (
            f'{{"groundTruthData":{{"data":{_quoted(self.label)},"encoding":"CSV"}},'
            f'"eventMetadata":{{"eventId":{_quoted(self.inference_id)},'
            f'"eventTime":{_quoted(self.event_time)},"source":{_quoted(self.source)},'
            f'"sequencer":{_quoted(self.sequencer)}{author}{image}}},"eventVersion":"0",'
            f'"origin":{{"key":{_quoted(origin.key)},"versionId":{_quoted(origin.version_id)},'
            f'"line":{origin.line},"byteOffset":{origin.byte_offset},'
            f'"uploadedAt":{_quoted(origin.uploaded_at)}}}}}\n'
        ).encode()

    def to_record(self) -> str:
        """Return the record as a user would upload it: what a quarantine entry keeps, to be put back."""
        said = {"eventTime": self.event_time, "source": self.source}
        if self.author is not None:
            said["author"] = self.author
        if self.image is not None:
            return _dump({"source-ref": self.image, "label": self.label, **said}).decode().rstrip("\n")
        return (
            _dump(
                {
                    "groundTruthData": {"data": self.label, "encoding": "CSV"},
                    "eventMetadata": {"eventId": self.inference_id, **said},
                    "eventVersion": "0",
                }
            )
            .decode()
            .rstrip("\n")
        )

    def to_label_line(self, image_etag: str | None = None) -> bytes:
        """Return the line of a dataset's ``ground-truth.jsonl``.

        Parameters
        ----------
        image_etag : str or None
            Of a labelled example the ETag of its image, as the dataset version digests it.
        """
        return _dump({**self._to_json(), "imageETag": image_etag})

    def to_statement_line(
        self, *, captured: bool, trained: bool, expired: bool = False, image_etag: str | None = None
    ) -> bytes:
        """Return the line of a dataset's ``statements.jsonl``.

        Parameters
        ----------
        captured : bool
            Whether the prediction is captured, or the image uploaded.
        trained : bool
            Whether this is the statement that stands for a label that the version trains on.
        expired : bool
            Whether it has waited too long for its capture: kept for what it supersedes.
        image_etag : str or None
            Of a labelled example that is trained on the ETag of its image.
        """
        rest = {
            "captured": captured,
            "trained": trained,
            "expired": expired,
            "imageETag": image_etag,
            "origin": self.origin.to_json(),
        }
        return _dump({**self._to_json(), **rest})

    def _to_json(self) -> dict[str, str | None]:
        return {
            "inferenceId": self.inference_id,
            "label": self.label,
            "eventTime": self.event_time,
            "author": self.author,
            "source": self.source,
            "sequencer": self.sequencer,
            "image": self.image,
        }


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Kept:
    """A line of a ``statements.jsonl``; the flags are those of `Statement.to_statement_line`."""

    statement: Statement
    captured: bool
    trained: bool
    expired: bool = False
    image_etag: str | None = None


class Reader:
    """Reads statements from lines; texts that repeat (authors, labels, keys) are held once.

    A million statements differ in their ids, times and sequencers only: sharing the rest halves their memory.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def accepted(self, key: str, lines: Iterable[bytes]) -> Iterator[Statement]:
        """Read an accepted object; only ingest writes those, so a line that cannot be read is an error.

        Raises
        ------
        DatasetInvalid
            When a line is not what ingest writes.
        """
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                metadata = record["eventMetadata"]
                yield self._statement(
                    metadata["eventId"], record["groundTruthData"]["data"], metadata, record["origin"]
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DatasetInvalid(
                    f"line {number} of {key} is not an accepted statement ({error!r}); only ingest may write "
                    "there"
                ) from error

    def kept(self, key: str, lines: Iterable[bytes]) -> Iterator[Kept]:
        """Read the statements of a ``statements.jsonl``.

        `lines` are those after the first, which describes the version.

        Raises
        ------
        DatasetInvalid
            When a line is not what a snapshot writes.
        """
        for number, line in enumerate(lines, 2):
            try:
                record = json.loads(line)
                statement = self._statement(record["inferenceId"], record["label"], record, record["origin"])
                yield Kept(
                    statement,
                    bool(record["captured"]),
                    bool(record["trained"]),
                    bool(record["expired"]),
                    _optional_text(record["imageETag"]),
                )
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DatasetInvalid(f"line {number} of {key} is not a kept statement ({error!r})") from error

    def _statement(
        self, inference_id: str, label: str, said: Mapping[str, Any], origin: Mapping[str, Any]
    ) -> Statement:
        share = self._texts.setdefault
        author, image = said.get("author"), said.get("image")
        texts = (inference_id, label, said["eventTime"], said["source"], said["sequencer"], origin["key"])
        if not all(isinstance(text, str) and text for text in texts):
            raise TypeError("a field that must be text is not, or is empty")
        if not isinstance(origin["versionId"], str) or not isinstance(origin["uploadedAt"], str):
            raise TypeError("the origin's versionId or uploadedAt is no text")
        if not isinstance(author, str | None) or not isinstance(image, str | None):
            raise TypeError("author or image is no text")
        return Statement(
            inference_id,
            share(label, label),
            said["eventTime"],
            share(author, author) if author is not None else None,
            share(said["source"], said["source"]),
            said["sequencer"],
            Origin(
                share(origin["key"], origin["key"]),
                share(origin["versionId"], origin["versionId"]),
                int(origin["line"]),
                int(origin["byteOffset"]),
                share(origin["uploadedAt"], origin["uploadedAt"]),
            ),
            image,
        )


def _optional_text(value: object) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError(f"{value!r} is no text")
    return value


def changed(before: Mapping[str, str], after: Mapping[str, Statement]) -> dict[str, int]:
    """Count inference ids whose label is new or different, per label.

    The same correction uploaded again is newer but says the same: it does not count.

    Parameters
    ----------
    before : Mapping[str, str]
        Labels by inference id.
    after : Mapping[str, Statement]
        The statements that stand for the labels now, by inference id.
    """
    counts = Counter(
        statement.label
        for identifier, statement in after.items()
        if before.get(identifier) != statement.label
    )
    return dict(sorted(counts.items()))


def per_label(labels: Mapping[str, Statement]) -> dict[str, int]:
    """Count labels per class."""
    return dict(sorted(Counter(statement.label for statement in labels.values()).items()))
