"""Data capture: what the endpoint was asked and what it answered.

The files come by the thousand and hold far more than is labelled, so they are read in concatenated chunks of
bounded size, by Polars. A file of the endpoint may be cut off or hold foreign records: a line that is no
capture record is counted and logged, and the rest goes on. What Polars refuses in a chunk is found by
halving it, so the same lines are refused whatever they are read together with.

Format: SageMaker's data capture, one JSON object per line (``docs/conventions.md``).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dataset.records import instant

CHUNK_BYTES = 8 * 1024 * 1024
"""Lines that are parsed together. A line that is longer is a chunk of its own."""
READ_BYTES = 64 * 1024
BLANKS = (ord(" "), ord("\t"), ord("\r"))
TOLD = 20
"""Lines of a chunk that are named in the log when they are malformed."""
MAX_LINE_BYTES = 64 * 1024 * 1024
"""The endpoint takes 6 MB and answers less; no record is longer than this, and none may fill the memory."""
FOLD_ROWS = 250_000
"""Captured requests that are held before those without a label, and older ones, are dropped."""
QUESTION = pl.Schema(
    {
        "inference_id": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "content": pl.UInt64(),
        "file": pl.UInt32(),
        "offset": pl.Int64(),
        "length": pl.UInt32(),
    }
)
_TIME = "%Y-%m-%dT%H:%M:%S%.f%#z"
_PART = pl.Struct({"data": pl.String, "encoding": pl.String})
_METADATA = pl.Struct({"eventId": pl.String, "inferenceId": pl.String, "inferenceTime": pl.String})
_QUESTIONS = pl.Schema({"eventMetadata": _METADATA, "captureData": pl.Struct({"endpointInput": _PART})})
_ANSWERS = pl.Schema({"eventMetadata": _METADATA, "captureData": pl.Struct({"endpointOutput": _PART})})

log = logging.getLogger(__name__)


@dataclass
class CaptureCounts:
    """What was come across, filled while captures are iterated over."""

    lines: int = 0
    malformed: int = 0


@dataclass(frozen=True)
class Answer:
    """What the endpoint answered to one request."""

    inference_id: str
    time: datetime
    response: bytes

    def prediction(self) -> str | None:
        """Return the label that the endpoint answered, or ``None`` when the answer holds none."""
        try:
            answer = json.loads(self.response)
        except ValueError:
            return None
        label = answer.get("label") if isinstance(answer, dict) else None
        return label if isinstance(label, str) else None


@dataclass(frozen=True)
class _Chunk:
    """Whole lines of one or more files, concatenated.

    ``pieces`` are the files' numbers, ``begins`` where each one's lines begin in `content`, and ``offsets``
    where they began in the file.
    """

    content: bytearray
    pieces: list[int]
    begins: list[int]
    offsets: list[int]

    def add(self, number: int, offset: int, data: bytes) -> None:
        """Append `data` of the file with this number, which lies at `offset` there."""
        self.pieces.append(number)
        self.begins.append(len(self.content))
        self.offsets.append(offset)
        self.content.extend(data)
        if not data.endswith(b"\n"):
            self.content.extend(b"\n")


def files(directory: Path) -> list[str]:
    """Return the paths of the capture files below `directory`, sorted."""
    found = (os.path.join(root, name) for root, _, names in os.walk(directory) for name in names)
    return sorted(path for path in found if path.endswith(".jsonl"))


def questions(paths: list[str], counts: CaptureCounts) -> Iterator[pl.DataFrame]:
    """Yield the captured requests, chunk by chunk, without what they hold.

    Yields
    ------
    polars.DataFrame
        ``inference_id``, ``at`` (UTC), ``content`` (a number for what was captured, equal where that is), and
        where the line is: ``file`` (number in `paths`), ``offset`` and ``length``.
    """
    for frame in _records(paths, _QUESTIONS, counts):
        yield frame.select(
            "inference_id",
            "at",
            (pl.col("data").hash(1) ^ pl.col("encoding").hash(2)).alias("content"),
            "file",
            "offset",
            "length",
        )


def newest_questions(paths: list[str], wanted: pl.DataFrame, counts: CaptureCounts) -> pl.DataFrame:
    """Return the newest captured request of every inference id in `wanted`.

    Several of one id and time stay when they differ; which of them holds is for who reads them to say.

    Parameters
    ----------
    wanted
        One column, ``inference_id``.

    Returns
    -------
    polars.DataFrame
        As `questions` yields it.
    """
    held, size = [], 0
    best = pl.DataFrame(schema=QUESTION)
    for frame in questions(paths, counts):
        held.append(frame)
        size += frame.height
        if size >= max(FOLD_ROWS, best.height):  # joined seldom: a join costs as much as all the labels
            best, held, size = _newest([best, *held], wanted), [], 0
    return _newest([best, *held], wanted)


def _newest(frames: list[pl.DataFrame], wanted: pl.DataFrame) -> pl.DataFrame:
    rows = pl.concat(frames, rechunk=False).join(wanted, on="inference_id", how="semi")
    last = rows.group_by("inference_id").agg(pl.col("at").max())
    rows = rows.join(last, on=["inference_id", "at"], how="semi")
    # Of what was delivered twice any copy will do; the same one is kept whatever the order of the files.
    return rows.unique(["inference_id", "content"], keep="any")


def answers(directory: Path, counts: CaptureCounts) -> Iterator[Answer]:
    """Yield every captured answer below `directory`; empty where only the request was captured."""
    for frame in _records(files(directory), _ANSWERS, counts):
        columns = (frame[name].to_list() for name in ("inference_id", "at", "data", "encoding"))
        for inference_id, at, data, encoding in zip(*columns, strict=True):
            body = b"" if data is None else base64.b64decode(data) if encoding == "BASE64" else data.encode()
            yield Answer(inference_id, at, body)


def _records(paths: list[str], schema: pl.Schema, counts: CaptureCounts) -> Iterator[pl.DataFrame]:
    """Yield what is whole of each chunk: ``inference_id``, ``at``, ``data``, ``encoding``, and its place."""
    for chunk in _chunks(paths):
        lines = _lines(chunk.content)
        counts.lines += len(lines)
        if not len(lines):
            continue
        frame, taken = _parse(chunk.content, lines, schema)
        frame = _fields(frame, schema)
        whole = frame["whole"].to_numpy()
        place = np.searchsorted(np.array(chunk.begins), taken[:, 0], side="right") - 1
        file = np.array(chunk.pieces, np.int64)[place]
        offset = (
            taken[:, 0] - np.array(chunk.begins, np.int64)[place] + np.array(chunk.offsets, np.int64)[place]
        )
        malformed = len(lines) - int(whole.sum())
        if malformed:
            counts.malformed += malformed
            _tell(paths, chunk, lines, taken[whole])
        yield (
            frame.with_columns(
                pl.Series("file", file.astype(np.uint32)),
                pl.Series("offset", offset),
                pl.Series("length", (taken[:, 1] - taken[:, 0]).astype(np.uint32)),
            )
            .filter(whole)
            .drop("whole")
        )


def _lines(content: bytearray) -> NDArray[np.int64]:
    """Return where the lines that are not blank begin and end: shape ``(n, 2)``."""
    characters = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(characters == ord("\n")).astype(np.int64)
    begins = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lines = np.stack([begins, ends], axis=1)[ends > begins]
    # A blank line begins with a blank, which hardly any other does: only these are looked at one by one.
    suspects = np.flatnonzero(np.isin(characters[lines[:, 0]], BLANKS))
    blank = [row for row in suspects.tolist() if not bytes(content[slice(*lines[row].tolist())]).strip()]
    return np.delete(lines, blank, axis=0)


def _parse(
    content: bytearray, lines: NDArray[np.int64], schema: pl.Schema
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """Parse the lines that can be, and say which these are."""
    part = bytes(memoryview(content)[int(lines[0, 0]) : int(lines[-1, 1]) + 1])
    with contextlib.suppress(pl.exceptions.PolarsError):  # the halves tell which line it is
        frame = pl.read_ndjson(part, schema=schema)
        if frame.height == len(lines):
            return frame, lines
    if len(lines) == 1:
        return pl.DataFrame(schema=schema), lines[:0]
    half = len(lines) // 2
    (first, some), (second, others) = (_parse(content, part, schema) for part in (lines[:half], lines[half:]))
    return pl.concat([first, second]), np.concatenate([some, others])


def _fields(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    part = "endpointInput" if schema is _QUESTIONS else "endpointOutput"
    metadata = pl.col("eventMetadata").struct
    frame = frame.select(
        pl.coalesce(
            pl.when(metadata.field("inferenceId") != "").then(metadata.field("inferenceId")),
            metadata.field("eventId"),
        ).alias("inference_id"),
        metadata.field("inferenceTime").alias("time"),
        pl.col("captureData").is_not_null().alias("has_data"),
        pl.col("captureData").struct.field(part).alias("part"),
    ).with_columns(
        pl.col("time").str.to_datetime(_TIME, time_unit="us", strict=False).alias("at"),
        pl.col("part").is_not_null().alias("has_part"),
        pl.col("part").struct.field("data").alias("data"),
        pl.col("part").struct.field("encoding").alias("encoding"),
    )
    frame = frame.with_columns(at=pl.when(pl.col("at").dt.year().is_between(MINYEAR, MAXYEAR)).then("at"))
    odd = frame["at"].is_null() & frame["time"].is_not_null()
    if odd.any():  # another notation of ISO 8601, or no time
        frame = frame.with_columns(
            at=frame["at"].scatter(odd.arg_true(), [_instant(text) for text in frame["time"].filter(odd)])
        )
    encoded = pl.when(pl.col("encoding") == "BASE64").then("data")
    undecoded = frame.select(
        (encoded.is_not_null() & encoded.str.decode("base64", strict=False).is_null()).alias("bad")
    )["bad"]
    bad = undecoded.to_numpy().copy()
    for row in undecoded.arg_true():  # Polars is stricter than the standard library
        bad[row] = not _is_base64(frame["data"][row])
    return frame.select(
        "inference_id",
        "at",
        "data",
        "encoding",
        (
            pl.col("inference_id").is_not_null()
            & pl.col("at").is_not_null()
            & pl.col("has_data")
            & (~pl.col("has_part") | (pl.col("data").is_not_null() & pl.col("encoding").is_not_null()))
            & ~pl.Series("bad", bad)
        ).alias("whole"),
    )


def _instant(text: str) -> datetime | None:
    try:
        return instant(text).astimezone(UTC)
    except (ValueError, OverflowError):  # a year of UTC that Python has not
        return None


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _tell(paths: list[str], chunk: _Chunk, lines: NDArray[np.int64], whole: NDArray[np.int64]) -> None:
    """Log the first few lines of a chunk that are no capture records."""
    lost = np.setdiff1d(lines[:, 0], whole[:, 0])
    for begin in lost[:TOLD].tolist():
        place = int(np.searchsorted(chunk.begins, begin, side="right")) - 1
        path = paths[chunk.pieces[place]]
        line = _line_number(path, begin - chunk.begins[place] + chunk.offsets[place])
        start = bytes(chunk.content[begin : begin + 60]).partition(b"\n")[0].decode("utf-8", "replace")
        log.warning("%s line %d is no capture record: it begins with %r", path, line, start)
    if len(lost) > TOLD:
        log.warning("%d more lines of these files are no capture records", len(lost) - TOLD)


def _line_number(path: str, offset: int) -> int:
    number = 1
    with open(path, "rb") as file:
        while offset > 0 and (block := file.read(min(offset, CHUNK_BYTES))):
            number += block.count(b"\n")
            offset -= len(block)
    return number


def _chunks(paths: list[str]) -> Iterator[_Chunk]:
    """Concatenate files, and cut large ones between lines."""
    chunk = _Chunk(bytearray(), [], [], [])
    for number, path in enumerate(paths):
        offset = 0
        with open(path, "rb", buffering=0) as file:
            while data := file.read(CHUNK_BYTES):
                begins = offset
                offset += len(data)
                if len(data) == CHUNK_BYTES and not data.endswith(b"\n"):
                    rest, skipped = _rest_of_line(file)
                    data += rest
                    offset += len(rest) + skipped
                chunk.add(number, begins, data)
                if len(chunk.content) >= CHUNK_BYTES:
                    yield chunk
                    chunk = _Chunk(bytearray(), [], [], [])
    if chunk.content:
        yield chunk


def _rest_of_line(file: BinaryIO) -> tuple[bytes, int]:
    """Return what is left of a line, and how many bytes beyond :data:`MAX_LINE_BYTES` were passed over."""
    rest = bytearray()
    skipped = 0
    while block := file.read(READ_BYTES):
        line, end, beyond = block.partition(b"\n")
        if len(rest) < MAX_LINE_BYTES:
            rest += line + end
        else:
            skipped += len(line) + len(end)
        if end:
            file.seek(-len(beyond), os.SEEK_CUR)
            break
    return bytes(rest), skipped
