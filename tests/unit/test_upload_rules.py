"""Uploads as lines: the same however the stream is cut or packed, and no more of them than the limits."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truthloop.errors import UploadRejected
from truthloop.uploads.lines import (
    MAXIMUM_LINE_BYTES,
    MAXIMUM_OBJECT_BYTES,
    Line,
    UploadFormat,
    bounded,
    format_of,
    gunzip,
    read_lines,
    split_lines,
)

PLAIN = UploadFormat("jsonl", gzipped=False)
PACKED = UploadFormat("jsonl", gzipped=True)


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[i : i + size] for i in range(0, len(content), size)]


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(1, 40), st.integers(1, 14))
@settings(max_examples=300, deadline=None)
def test_lines_do_not_depend_on_how_the_stream_is_cut(lines: list[bytes], size: int, limit: int) -> None:
    content = b"\n".join(lines)
    expected = list(split_lines([content], limit))
    assert list(split_lines(cut(content, size), limit)) == expected
    # Each line is what stands at its offset, and nothing but white space and marks is passed over.
    for line in expected:
        assert content[line.offset : line.offset + len(line.content)] == line.content
    read = {line.number for line in expected}
    assert all(
        number in read or part.removeprefix(b"\xef\xbb\xbf").strip() == b""
        for number, part in enumerate(content.split(b"\n"), 1)
    )


def test_offsets_and_numbers_are_those_of_the_object() -> None:
    content = b"\xef\xbb\xbfone\r\n\n two \nthree"
    assert list(split_lines([content])) == [Line(1, 3, b"one"), Line(3, 9, b" two "), Line(4, 15, b"three")]


def test_a_line_without_end_is_held_in_bounded_memory() -> None:
    chunks = (b"x" * 100_000 for _ in range(50))
    (line,) = split_lines(chunks)
    assert not line.complete
    assert len(line.content) == MAXIMUM_LINE_BYTES


def test_a_line_at_the_limit_is_whole_and_the_next_is_read() -> None:
    lines = list(split_lines([b"x" * 10 + b"\n", b"y" * 11 + b"\nz"], limit=10))
    assert [(line.number, line.complete) for line in lines] == [(1, True), (2, False), (3, True)]


def test_the_limit_counts_lines_and_not_what_follows_the_last_end() -> None:
    assert len(list(split_lines([b"a\nb\n", b"c\n"], most=3))) == 3
    assert len(list(split_lines([b"a\nb\n", b"c"], most=3))) == 3
    for chunks in ([b"a\nb\nc\nd"], [b"a\nb\nc\n", b"d"], [b"\n\n\n\n"], [b"a\nb\nc\nd\n"]):
        with pytest.raises(UploadRejected, match="TOO_LARGE: the object has more than 3 lines; split it"):
            list(split_lines(chunks, most=3))


@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=5), st.integers(1, 400), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_members_are_unpacked_one_after_the_other(parts: list[bytes], size: int, padding: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(padding)
    assert b"".join(gunzip(cut(packed, size))) == b"".join(parts)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 10_000), st.integers(1, 64))
@settings(max_examples=200, deadline=None)
def test_what_is_cut_off_is_rejected(content: bytes, at: int, size: int) -> None:
    packed = gzip.compress(content)
    with pytest.raises(UploadRejected, match="BAD_GZIP"):
        list(gunzip(cut(packed[: at % len(packed)], size)))


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\0",
        b'{"no": "gzip"}',
        gzip.compress(b"a") + b"garbage",
        gzip.compress(b"a") + gzip.compress(b"b")[:-1],
        gzip.compress(b"a" * 99)[:-8] + bytes(8),  # the checksum
        zlib.compress(b"a"),
    ],
    # Named, since gzip writes the time: test processes that load this file in two seconds would disagree.
    ids=["nothing", "a zero", "json", "garbage behind", "the second cut", "the checksum", "zlib"],
)
def test_what_is_no_gzip_is_rejected(broken: bytes) -> None:
    with pytest.raises(UploadRejected) as rejected:
        list(gunzip([broken]))
    assert rejected.value.reason == "BAD_GZIP"


def test_a_bomb_is_unpacked_in_small_pieces_and_only_to_the_limit() -> None:
    packed = gzip.compress(bytes(20_000_000))
    assert len(packed) < 20_000
    pieces = list(gunzip([packed]))
    assert sum(map(len, pieces)) == 20_000_000
    assert max(map(len, pieces)) <= 256 * 1024
    taken: list[bytes] = []
    with pytest.raises(UploadRejected, match="TOO_LARGE: the object has more than 1000000 bytes unpacked"):
        taken.extend(bounded(gunzip([packed]), 1_000_000))
    assert sum(map(len, taken)) <= 1_000_000


def test_many_tiny_members_take_no_time_with_their_square() -> None:
    # Of 256 KiB each time what is left would be copied: 20 seconds for these.
    packed = gzip.compress(b"") * 100_000
    assert list(gunzip(cut(packed, 256 * 1024))) == []


def test_an_object_beyond_the_limit_is_not_even_read() -> None:
    def untouched() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    for upload in (PLAIN, PACKED):
        with pytest.raises(UploadRejected, match="split it into files of at most"):
            list(read_lines(untouched(), upload, MAXIMUM_OBJECT_BYTES + 1))


def test_packed_lines_are_those_of_the_content() -> None:
    content = b"one\n\xef\xbb\xbftwo\r\n\nthree"
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as file:
        file.write(content)
    packed = out.getvalue()
    plain = list(read_lines([content], PLAIN, len(content)))
    assert list(read_lines(cut(packed, 5), PACKED, len(packed))) == plain
    assert [line.offset for line in plain] == [0, 4, 13]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.jsonl", PLAIN),
        ("a.csv", UploadFormat("csv", gzipped=False)),
        ("A.JSONL.GZ", PACKED),
        ("a.jsonl.csv.gz", UploadFormat("csv", gzipped=True)),
        ("a.json", None),
        ("a.gz", None),
        ("jsonl", None),
        ("a.jsonl.gz.gz", None),
        ("a.jsonl/", None),
    ],
)
def test_the_suffix_says_what_an_upload_holds(key: str, expected: UploadFormat | None) -> None:
    if expected is None:
        with pytest.raises(UploadRejected, match="NOT_SUPPORTED"):
            format_of(key)
    else:
        assert format_of(key) == expected
