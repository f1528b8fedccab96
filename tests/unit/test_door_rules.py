"""Rules at the door: what is ground truth, why the rest is not, and that each record can be found again."""

from __future__ import annotations

import base64
import csv
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truthloop.errors import UploadRejected
from truthloop.times import from_iso, to_iso
from truthloop.uploads.door import (
    Judge,
    Rejection,
    SourceObject,
    label_set_name,
    padded_sequencer,
    rejected_whole,
)
from truthloop.uploads.lines import Line, split_lines
from truthloop.versions.labels import Origin, Statement

SOURCE = SourceObject("bucket", "key.jsonl", "v1", "617f08299329d189", datetime(2026, 11, 22, 10, tzinfo=UTC))


def text(label: Any = "7", **metadata: Any) -> bytes:
    return json.dumps(
        {
            "groundTruthData": {"data": label, "encoding": "CSV"},
            "eventMetadata": {"eventId": "i", **metadata},
            "eventVersion": "0",
        }
    ).encode()


def decided(content: bytes, known: frozenset[str] | None = None) -> Statement | Rejection:
    result = Judge(SOURCE, "jsonl", known)(Line(1, 0, content))
    assert result is not None
    return result


def reason(content: bytes, known: frozenset[str] | None = None) -> str | None:
    result = decided(content, known)
    return result.reason if isinstance(result, Rejection) else None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (text(), None),
        (text(eventTime="2026-11-22T10:04:59Z"), None),
        (text(eventTime="2026-11-22T10:05:01Z"), "FUTURE_TIME"),
        (text(eventTime="9999-12-31T23:59:59-23:59"), "BAD_TIME"),
        (text(eventTime=5), "BAD_TIME"),
        (text("x" * 128), None),
        (text("x" * 129), "BAD_LABEL"),
        (text(7), "BAD_LABEL"),
        (text(" "), "BAD_LABEL"),
        (text("\ud800"), "BAD_LABEL"),
        (text(source="guess"), "BAD_SCHEMA"),
        (text(source=["audit"]), "BAD_SCHEMA"),
        (text(author="\n"), "BAD_SCHEMA"),
        (text(eventId=None), "BAD_SCHEMA"),
        (text().replace(b'"CSV"', b'"BASE64"'), "BAD_SCHEMA"),
        (text().replace(b'"0"', b'"1"'), "BAD_SCHEMA"),
        (b"[" * 10_000, "NOT_JSON"),
        (b"1" * 10_000, "NOT_JSON"),
        (b"[]", "BAD_SCHEMA"),
        (b"\xff", "NOT_UTF8"),
        (text(source="decision"), None),
        (text(eventId="image:a"), "BAD_SCHEMA"),
        (text(eventId="x" * 257), "BAD_SCHEMA"),
        (text(author=["ann"]), "BAD_SCHEMA"),
        (b" " + text() + b"\t", None),
        (text() + text(), "NOT_JSON"),
        (text() + b"\0", "NOT_JSON"),
        (b'{"a": 1}', "BAD_SCHEMA"),
        (b'{"groundTruthData": {}}', "BAD_SCHEMA"),
    ],
)
def test_each_reason(content: bytes, expected: str | None) -> None:
    assert reason(content) == expected


def test_the_label_set_only_counts_where_there_is_a_model() -> None:
    assert reason(text("x"), frozenset({"7"})) == "UNKNOWN_LABEL"
    assert reason(text("x"), None) is None


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "csv"]))
@settings(max_examples=300, deadline=None)
def test_any_line_is_judged(content: bytes, records: str) -> None:
    result = Judge(SOURCE, records, None)(Line(1, 0, content))
    if isinstance(result, Rejection):
        assert json.loads(result.to_line(SOURCE))["reason"] == result.reason


def test_sequencers_of_different_lengths_compare_after_padding() -> None:
    assert padded_sequencer("FF") < padded_sequencer("0100") < padded_sequencer("1FF")


IMAGE = "ground-truth/images/2026/a b.png"


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        (IMAGE, IMAGE),
        (f"s3://bucket/{IMAGE}", IMAGE),
        ("ground-truth/images/ü.png", "ground-truth/images/ü.png"),
        (f"s3://other/{IMAGE}", None),
        (f"https://bucket/{IMAGE}", None),
        ("ground-truth/images/", None),
        ("ground-truth/images/a/", None),
        ("ground-truth/images//a.png", None),
        ("ground-truth/images/../../base/a.png", None),
        ("ground-truth/images/./a.png", None),
        ("base/a.png", None),
        ("ground-truth/images/\ud800.png", None),
        ("ground-truth/images/\n.png", None),
        ("ground-truth/images/" + "ü" * 502, "ground-truth/images/" + "ü" * 502),
        ("ground-truth/images/" + "ü" * 503, None),
        ("", None),
        (None, None),
        (7, None),
        ([IMAGE], None),
    ],
)
def test_an_example_names_an_image_of_the_data_bucket(reference: Any, key: str | None) -> None:
    result = decided(json.dumps({"source-ref": reference, "label": "7", "author": "ann"}).encode())
    if key is None:
        assert isinstance(result, Rejection)
        assert result.reason == "BAD_IMAGE_REFERENCE"
        assert "s3://bucket/ground-truth/images/" in result.detail
    else:
        assert isinstance(result, Statement)
        assert (result.inference_id, result.image) == (f"image:{key}", key)
        assert (result.label, result.author, result.source) == ("7", "ann", "correction")
        assert result.event_time == "2026-11-22T10:00:00.000000Z"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"eventTime": "2026-11-22T10:06:00Z"}, "FUTURE_TIME"),
        ({"label": 7}, "BAD_LABEL"),
        ({"label": None}, "BAD_LABEL"),
        ({"label": "x"}, "UNKNOWN_LABEL"),
        ({"author": 7}, "BAD_SCHEMA"),
        ({"source": "audits"}, "BAD_SCHEMA"),
        ({"groundTruthData": {"data": "7"}}, "BAD_SCHEMA"),
        ({"eventMetadata": None}, "BAD_SCHEMA"),
        ({"label-metadata": {"class-name": "7"}}, None),
    ],
)
def test_an_example_is_checked_as_a_correction_is(change: dict[str, Any], expected: str | None) -> None:
    assert (
        reason(json.dumps({"source-ref": IMAGE, "label": "7", **change}).encode(), frozenset("7")) == expected
    )


def test_an_unknown_label_is_named() -> None:
    result = decided(text("x"), frozenset({"7"}))
    assert isinstance(result, Rejection)
    assert result.label == "x"


# -- CSV ---------------------------------------------------------------------------------------------------


def rows(content: bytes, known: frozenset[str] | None = None) -> list[Statement | Rejection]:
    judge = Judge(SOURCE, "csv", known)
    return [result for line in split_lines([content]) if (result := judge(line)) is not None]


def stated(content: bytes) -> list[tuple[str, str, str | None, str, str]]:
    """Return id, label, author, source and time of the rows, all of them accepted."""
    found = rows(content)
    assert all(isinstance(row, Statement) for row in found)
    return [
        (row.inference_id, row.label, row.author, row.source, row.event_time)
        for row in found
        if isinstance(row, Statement)
    ]


UPLOADED = "2026-11-22T10:00:00.000000Z"


def test_rows_need_no_header() -> None:
    assert stated(b'i1,7\r\n"i,2","say ""8"""\n\ni3,9') == [
        ("i1", "7", None, "correction", UPLOADED),
        ("i,2", 'say "8"', None, "correction", UPLOADED),
        ("i3", "9", None, "correction", UPLOADED),
    ]


def test_a_header_names_columns_in_any_order() -> None:
    content = (
        b"\xef\xbb\xbflabel, author,inference_id,event_time,source\r\n"
        b"7,ann,i1,2026-11-22T09:00:00+01:00,audit\r\n8,,i2,,\r\n"
    )
    assert stated(content) == [
        ("i1", "7", "ann", "audit", "2026-11-22T08:00:00.000000Z"),
        ("i2", "8", None, "correction", UPLOADED),
    ]


def test_files_that_are_joined_bring_their_headers_along() -> None:
    content = b"inference_id,label\ni1,7\n\xef\xbb\xbflabel,inference_id\n8,i2\n"
    assert [row[:2] for row in stated(content)] == [("i1", "7"), ("i2", "8")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"i1", "NOT_CSV"),
        (b"i1,7,ann", "NOT_CSV"),
        (b'"i1,7', "NOT_CSV"),
        (b'"i"1,7', "NOT_CSV"),
        (b"i1\r,7", "NOT_CSV"),
        (b"i1,", "BAD_LABEL"),
        (b",7", "BAD_SCHEMA"),
        (b"i\x001,7", "BAD_SCHEMA"),
        (b"image:a,7", "BAD_SCHEMA"),
        (b"\xff,7", "NOT_UTF8"),
        (b"i1,x", "UNKNOWN_LABEL"),
        (b"inference_id,label,notes", "NOT_CSV"),
        (b"inference_id,label,label", "NOT_CSV"),
        (b"x" * 65_537, "TOO_LARGE"),
    ],
)
def test_a_bad_row_says_what_columns_it_has(line: bytes, expected: str) -> None:
    (result,) = rows(line, frozenset("7"))
    assert isinstance(result, Rejection)
    assert result.reason == expected
    entry = json.loads(result.to_line(SOURCE))
    assert (entry["format"], entry["columns"]) == ("csv", ["inference_id", "label"])


def test_a_bad_row_below_a_header_has_the_headers_columns() -> None:
    (result,) = rows(b"label,inference_id,source\n7,i1,guess\n")
    assert isinstance(result, Rejection)
    entry = json.loads(result.to_line(SOURCE))
    assert (entry["reason"], entry["columns"]) == ("BAD_SCHEMA", ["label", "inference_id", "source"])
    assert (entry["source"]["line"], entry["source"]["byteOffset"]) == (2, 26)


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2))
@settings(max_examples=200, deadline=None)
def test_what_a_spreadsheet_writes_is_read(cells: list[str]) -> None:
    class Collected(list[str]):
        write = list.append

    out = Collected()
    csv.writer(out).writerow(cells)
    line = out[0].encode("utf-8", "surrogatepass").removesuffix(b"\r\n")
    found = rows(line)
    if all(cell.isprintable() and cell.strip() for cell in cells) and not cells[0].startswith("image:"):
        (row,) = found
        assert isinstance(row, Statement)
        assert [row.inference_id, row.label] == cells


# -- times -------------------------------------------------------------------------------------------------


@given(
    st.datetimes(max_value=datetime(2026, 11, 22, 10)),
    st.sampled_from(["seconds", "milliseconds", "microseconds", "minutes"]),
    st.sampled_from(["Z", "", "+00:00", "+14:00"]),
)
@settings(max_examples=200, deadline=None)
def test_times_are_written_in_one_spelling(moment: datetime, precision: str, zone: str) -> None:
    given_text = moment.isoformat(timespec=precision) + zone
    result = decided(text(eventTime=given_text))
    try:
        expected = to_iso(from_iso(given_text))
    except OverflowError:  # the year 0
        assert isinstance(result, Rejection)
        return
    assert isinstance(result, Statement)
    assert result.event_time == expected
    assert len(expected) == len(UPLOADED)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "noon",
        "2026-11-22T25:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-22T10:00:00ZZ",
        1,
        True,
        [],
        "\ud800",
        "2026-11-22T10:00:60Z",
        "٢٠٢٦-11-22T10:00:00Z",
        "2" * 5000,
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    assert reason(text(eventTime=wrong)) == "BAD_TIME"


# -- what is written ---------------------------------------------------------------------------------------


@given(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_an_accepted_line_is_what_json_would_write(name: str, key: str, other: str | None) -> None:
    line = Statement(
        name, name, UPLOADED, other, "audit", "0.1", Origin(key, key, 3, 412, UPLOADED), other
    ).to_accepted_line()
    metadata = {"eventId": name, "eventTime": UPLOADED, "source": "audit", "sequencer": "0.1"}
    if other is not None:
        metadata |= {"author": other, "image": other}
    origin = {"key": key, "versionId": key, "line": 3, "byteOffset": 412, "uploadedAt": UPLOADED}
    expected = {
        "groundTruthData": {"data": name, "encoding": "CSV"},
        "eventMetadata": metadata,
        "eventVersion": "0",
        "origin": origin,
    }
    assert line == json.dumps(expected, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@given(st.binary(min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_quarantine_line_holds_the_record_byte_for_byte(content: bytes) -> None:
    entry = json.loads(Rejection("NOT_JSON", "why", Line(3, 412, content)).to_line(SOURCE))
    raw = entry["record"].encode() if entry["encoding"] == "utf-8" else base64.b64decode(entry["record"])
    assert raw == content
    assert entry["source"] == {
        "bucket": "bucket",
        "key": "key.jsonl",
        "versionId": "v1",
        "line": 3,
        "byteOffset": 412,
        "uploadedAt": UPLOADED,
    }
    assert entry["format"] == "jsonl"
    assert "columns" not in entry


def test_an_object_that_is_rejected_whole_has_no_record() -> None:
    entry = json.loads(rejected_whole(UploadRejected("BAD_GZIP", "why"), SOURCE))
    assert entry.keys() == {"reason", "detail", "source"}
    assert (entry["reason"], entry["detail"], entry["source"]["line"]) == ("BAD_GZIP", "why", 0)


def test_a_label_set_has_one_name() -> None:
    assert label_set_name(None) == "any"
    name = label_set_name(frozenset({"7", "8"}))
    assert name == label_set_name(frozenset(["8", "7"]))
    assert len(name) == 12
    names = {label_set_name(frozenset(labels)) for labels in (["78"], ["7"], [], ["7", "8"], ["\ud800"])}
    assert len(names) == 5


def test_the_upload_time_is_utc_wherever_the_clock_is() -> None:
    zone = timezone(timedelta(hours=-5))
    source = SourceObject("bucket", "k", "v", "1", datetime(2026, 11, 22, 5, tzinfo=zone))
    result = Judge(source, "jsonl", None)(Line(1, 0, text()))
    assert isinstance(result, Statement)
    assert result.event_time == result.origin.uploaded_at == UPLOADED
