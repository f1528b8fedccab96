"""Prepare at scale: memory, order, and the records and bodies that an endpoint captures."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.contract import Paths
from common.errors import BaseSetError
from common.imaging import decode, to_input
from common.inputs import read_image
from dataset import captures, prepare
from dataset.captures import CaptureCounts, answers, files, newest_questions
from dataset.labels import read_labels
from dataset.pictures import Place, Workers, look_at_all
from dataset.records import read_merged_labels
from dataset.tables import pieces
from tests.containers.conftest import CONTAINERS, Digit, Job, NewJob, capture_line, encode, label_line, lines

TABLE = {"example_id": pl.String, "image": pl.Binary, "label": pl.String}


class Shown:
    """The digits, told in a word when Hypothesis prints an example."""

    def __init__(self, digits: list[Digit]) -> None:
        self.digits = digits


@pytest.fixture(scope="module")
def shown(digits: list[Digit]) -> Shown:
    return Shown(digits)


def peak(job: Job) -> int:
    """Run Prepare as a process and return the greatest memory that it had, in MiB."""
    # A process of little memory starts it: to Linux a new process has had what the one that started it has.
    starter = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", starter, sys.executable, "-m", "training", "prepare"]
    return int(subprocess.check_output(command, cwd=CONTAINERS, env=job.environment(), text=True)) // 1024


def large_png(chance: np.random.Generator) -> bytes:
    """Return a PNG of 264 KiB; Pillow would look for the best filter for half a minute in all."""
    rows = np.zeros((300, 901), np.uint8)  # each begins with its filter, none
    rows[:, 1:] = chance.integers(0, 256, (300, 900), np.uint8)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 300, 300, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows, 0),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def test_memory_does_not_grow_with_the_images(new_job: NewJob) -> None:
    # Given 46 and 101 MiB of images: as files, captured, and as Parquet in one row group, as by pandas;
    # both more than what is in memory at once
    chance = np.random.default_rng(0)
    peaks = []
    for count in (180, 390):
        job = new_job(str(count))
        table: dict[str, list[Any]] = {"example_id": [], "image": [], "label": []}
        for number in range(count):
            image = large_png(chance)
            if number % 3 == 0:
                for values, value in zip(table.values(), (str(number), image, "7"), strict=True):
                    values.append(value)
            elif number % 3 == 1:
                job.write_input(f"capture/{number}.jsonl", lines([capture_line(f"i{number}", image, "0")]))
            else:
                job.write_input(f"base/{number % 4}/{number}.png", image)
        pl.DataFrame(table).write_parquet(job.write_input("base/part.parquet", b""), row_group_size=count)
        job.dataset(labels=[label_line(f"i{number}", "3") for number in range(1, count, 3)])
        # When
        peaks.append(peak(job))
        report = job.output("report/report.json")
        assert sum(report["examples"].values()) == count
        assert report["nearDuplicates"] == 0
        shutil.rmtree(job.base)
    # Then 54 MiB more of images take less than half of that in memory
    assert peaks[1] - peaks[0] < 26, peaks


@pytest.mark.parametrize("compression", ["uncompressed", "snappy", "zstd"])
def test_a_table_is_read_in_pieces_whatever_its_row_group(
    tmp_path: Path, compression: Literal["uncompressed", "snappy", "zstd"]
) -> None:
    # Given 16 and 48 MiB of images in one row group each
    chance = np.random.default_rng(0)
    program = (
        "import re, sys; from pathlib import Path; from dataset.tables import pieces\n"
        "rows = [len(ids) for ids, _, _ in pieces(Path(sys.argv[1]), 'a')]\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(sum(rows), max(rows), re.search(r'VmHWM:\\s+(\\d+)', status).group(1))"
    )
    peaks = []
    for count in (64, 192):
        columns = {"example_id": [str(n) for n in range(count)], "image": [], "label": ["7"] * count}
        columns["image"] = [chance.bytes(1 << 18) for _ in range(count)]
        path = tmp_path / f"{count}.parquet"
        pl.DataFrame(columns, schema=TABLE).write_parquet(path, compression=compression, row_group_size=count)
        # When
        found = subprocess.check_output([sys.executable, "-c", program, path], cwd=CONTAINERS, text=True)
        rows, at_once, memory = (int(number) for number in found.split())
        assert (rows, at_once) == (count, 7)
        peaks.append(memory // 1024)
    # Then 32 MiB more of images take no more memory
    assert peaks[1] - peaks[0] < 8, peaks


def test_a_table_is_read_whatever_wrote_it(tmp_path: Path) -> None:
    # Given categories, numbers as labels, several row groups, other columns, and another type of binary
    table = pa.table(
        {
            "note": pa.array([None] * 700),
            "label": pa.array(["cat", "dog"] * 350).dictionary_encode(),
            "example_id": pa.array(range(700)),
            "image": pa.array([b"%d" % n for n in range(700)], pa.binary()),
        }
    )
    path = tmp_path / "part.parquet"
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        column = table["image"].cast(kind)
        pq.write_table(table.set_column(3, "image", column), path, row_group_size=300)
        # When
        found = [row for piece in pieces(path, "a") for row in zip(*piece, strict=True)]
        # Then
        assert found == [(str(n), b"%d" % n, ("cat", "dog")[n % 2]) for n in range(700)]
    pq.write_table(table.slice(0, 0), path)
    assert list(pieces(path, "a")) == []


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_order_files_and_repetition_decide_nothing(shown: Shown, seed: int) -> None:
    digits, chance = shown.digits, random.Random(seed)

    def run(
        base: list[Digit], labels: list[Any], captured: list[Any], chance: random.Random
    ) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as directory:
            job = Job(Path(directory))
            for digit in base:
                if chance.random() < 0.5:
                    job.base_set([digit])
                else:
                    columns = {"label": [digit.label], "image": [digit.png], "example_id": [digit.name]}
                    table = job.write_input(f"base/{chance.random()}.parquet", b"")
                    pl.DataFrame(columns).write_parquet(table)
            job.dataset(labels=labels)
            while captured:
                part, captured = captured[: (cut := chance.randint(1, 9))], captured[cut:]
                job.write_input(f"capture/{chance.randint(0, 2)}/{chance.random()}.jsonl", lines(part))
            prepare.main(Paths(job.base))
            found = {
                str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in job.outputs.rglob("*.parquet")
            }
            return found | {"digest": job.output("report/report.json")["digest"]}

    # Given one id captured at one time with two pictures, one labelled twice, and compressed copies
    base = digits[:24]
    captured = [
        capture_line(f"i{n}", encode(digit.image, "JPEG", quality=85) if n % 3 else digit.png, "0", time)
        for n, digit in enumerate(digits[12:36])
        for time in ("2026-11-22T09:00:00Z", "2026-11-22T11:00:00+02:00", "2026-11-22T08:59:59.5")
    ]
    captured.append(capture_line("i0", digits[50].png, "0"))
    labels = [label_line(f"i{n}", digit.label) for n, digit in enumerate(digits[12:36])]
    labels += [label_line("i1", "5", author="bob"), label_line("i2", "5", "2026-11-22T10:00:00.1Z")]
    expected = run(base, labels, captured, random.Random(0))
    # When
    again = [
        chance.sample(rows, len(rows)) + chance.sample(rows, chance.randint(0, len(rows)))
        for rows in (labels, captured)
    ]
    # Then
    assert run(chance.sample(base, len(base)), *again, chance) == expected


def body(kind: str, pixels: np.ndarray[Any, Any]) -> bytes:
    image = Image.fromarray(pixels)
    if kind == "image/png":
        return encode(image)
    if kind == "image/jpeg":
        return encode(image, "JPEG")
    if kind == "application/x-npy":
        buffer = io.BytesIO()
        np.save(buffer, pixels)
        return buffer.getvalue()
    if kind == "application/json; charset=utf-8":
        return json.dumps({"pixels": pixels.tolist()}).encode()
    return json.dumps({"image": base64.b64encode(encode(image, "JPEG")).decode()}).encode()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_model_learns_from_the_pixels_that_the_endpoint_saw(
    job: Job, digits: list[Digit], channels: int
) -> None:
    # Given a captured request of every content type, pixels also as text
    kinds = ["image/png", "application/x-npy", "application/json; charset=utf-8"]
    kinds += ["image/jpeg", "application/JSON"] if channels < 4 else []
    chance = np.random.default_rng(channels)
    shape = (9, 12) if channels == 1 else (9, 12, channels)
    job.base_set(digits[:40])
    bodies, records = {}, []
    for kind in kinds:
        bodies[kind] = body(kind, chance.integers(0, 256, shape, np.uint8))
        record = capture_line(kind, bodies[kind], "0")
        record["captureData"]["endpointInput"]["observedContentType"] = kind
        if "json" in kind.lower():
            record["captureData"]["endpointInput"] |= {"data": bodies[kind].decode(), "encoding": "JSON"}
        records.append(record)
    job.write_input("capture/a.jsonl", lines(records))
    job.dataset(labels=[label_line(kind, "1") for kind in kinds])
    # When
    prepare.main(Paths(job.base))
    # Then
    both = pl.concat([pl.read_parquet(job.outputs / side / "*.parquet") for side in ("train", "holdout")])
    trained = {row["example_id"]: row["image"] for row in both.filter(source="ground-truth").to_dicts()}
    assert trained.keys() == set(kinds)
    for kind in kinds:
        served = read_image(bodies[kind], captures_kind(kind))
        for seen in (1, 3):
            assert np.array_equal(to_input(decode(trained[kind]), 8, seen), to_input(served, 8, seen))


def captures_kind(kind: str) -> str:
    return kind.partition(";")[0].lower()


def test_a_request_that_holds_no_picture_is_left_out(job: Job, digits: list[Digit]) -> None:
    job.base_set(digits[:40])
    bad = {
        "text": ("text/csv", "1,2", "CSV"),
        "no pixels": ("application/json", '{"rows": []}', "JSON"),
        "no array": ("application/x-npy", base64.b64encode(b"no array").decode(), "BASE64"),
        "no content type": ("", base64.b64encode(b"no image").decode(), "BASE64"),
    }
    records = []
    for name, (kind, data, encoding) in bad.items():
        record = capture_line(name, b"", "0")
        record["captureData"]["endpointInput"] |= {"data": data, "encoding": encoding}
        record["captureData"]["endpointInput"]["observedContentType"] = kind or None
        records.append(record)
    without = capture_line("answer alone", b"", "0")
    del without["captureData"]["endpointInput"]
    job.write_input("capture/a.jsonl", lines([*records, without]))
    job.dataset(labels=[label_line(name, "1") for name in (*bad, "answer alone")])
    prepare.main(Paths(job.base))
    report = job.output("report/report.json")
    assert report["unreadableExamples"] == sorted([*bad, "answer alone"])
    assert (report["joined"], report["malformedCaptureRecords"]) == (5, 0)


def test_lines_are_told_apart_whatever_they_are_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given good and bad records in files that are cut into chunks of few lines
    good = [json.dumps(capture_line(f"i{n}", b"x" * n, str(n), "2026-11-22T09:00Z")) for n in range(40)]
    bad = [
        "{",
        "7",
        "[]",
        "\xff",
        "null",
        '{"eventMetadata": 1}',
        '{"captureData": {}}',
        good[0][:-9],
        "x" * 3000,
    ]
    bad.append(json.dumps(capture_line("bad", b"", "0", "no time")))
    chance = random.Random(0)
    mixed = [line.encode("latin-1") for line in (*good, *bad, "", "  ", "\r", "\t")]
    chance.shuffle(mixed)
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(mixed[:30]))
    (tmp_path / "b" / "c.jsonl").write_bytes(b"\r\n".join(mixed[30:]) + b"\n\n")
    (tmp_path / "notes.txt").write_bytes(b"{")
    wanted = pl.DataFrame({"inference_id": [f"i{n}" for n in range(0, 40, 3)]})
    for chunk in (200, 2_000, 1 << 20):
        monkeypatch.setattr(captures, "CHUNK_BYTES", chunk)
        monkeypatch.setattr(captures, "MAX_LINE_BYTES", 1000)
        monkeypatch.setattr(captures, "READ_BYTES", 100)
        monkeypatch.setattr(captures, "FOLD_ROWS", 7)
        caplog.clear()
        # When
        counts = CaptureCounts()
        paths = files(tmp_path)
        found = newest_questions(paths, wanted, counts)
        # Then
        assert (counts.lines, counts.malformed) == (len(good) + len(bad), len(bad))
        assert sorted(found["inference_id"]) == sorted(wanted["inference_id"])
        for inference_id, file, offset, length in found.select(
            "inference_id", "file", "offset", "length"
        ).iter_rows():
            line = Path(paths[file]).read_bytes()[offset : offset + length]
            assert json.loads(line) == json.loads(good[int(inference_id[1:])])
        counts = CaptureCounts()
        assert {answer.inference_id: answer.prediction() for answer in answers(tmp_path, counts)} == {
            f"i{n}": str(n) for n in range(40)
        }
        assert counts.malformed == len(bad)
        for path in (tmp_path / "a.jsonl", tmp_path / "b" / "c.jsonl"):
            for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
                if line.strip() in (b"[]", b"7", b"{", b'{"eventMetadata": 1}'):
                    assert f"{path.name} line {number} is no capture record" in caplog.text


def test_many_bad_lines_are_named_in_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text("{\n" * 50)
    counts = CaptureCounts()
    assert list(answers(tmp_path, counts)) == []
    assert counts == CaptureCounts(50, 50)
    assert caplog.text.count("is no capture record") == captures.TOLD
    assert f"{50 - captures.TOLD} more lines" in caplog.text


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_labels_are_the_same_as_a_table_and_one_by_one(tmp_path: Path, separators: tuple[str, str]) -> None:
    path = tmp_path / "ground-truth.jsonl"
    some = [
        label_line("b", "1"),
        label_line("b", "2", author="zoe"),
        label_line("b", "1", "2026-11-22T11:00:00+02:00"),
        label_line("a", 'quoted "label": "', image="k", imageETag="e"),
        label_line("c", "é", "2026-11-22 10:00"),  # a notation that only the slow way reads
    ]
    for count in range(len(some) + 1):
        path.write_text("".join(json.dumps(line, separators=separators) + "\n" for line in some[:count]))
        expected = [
            (label.inference_id, label.label, label.time, label.image, label.image_etag)
            for _, label in sorted(read_merged_labels(path).items())
        ]
        table = read_labels(path).sort("inference_id")
        assert table.select("inference_id", "label", "time", "image", "etag").rows() == expected
        assert table["at"].null_count() == 0
    assert read_labels(tmp_path / "none").height == 0


def test_processes_see_what_this_one_sees(
    tmp_path: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []
    for digit in digits[:20]:
        path = tmp_path / digit.name
        path.write_bytes(digit.png)
        places.append(Place(str(path)))
    places.append(Place(str(tmp_path)))  # a directory holds no picture
    monkeypatch.setattr(Workers, "HERE_BELOW", 6)
    with Workers(2) as workers:
        found = list(workers.map(look_at_all, iter(places), 4))
    here = look_at_all(places)
    assert [looks.digest for looks in found] == [looks.digest for looks in here]
    assert [bool(looks.problem) for looks in found] == [False] * 20 + [True]


def test_a_base_table_with_a_gap_is_refused(job: Job, digits: list[Digit]) -> None:
    table = pl.DataFrame({"example_id": ["a", "b"], "image": [digits[0].png, None], "label": ["1", "2"]})
    table.write_parquet(job.write_input("base/part.parquet", b""))
    with pytest.raises(BaseSetError, match=r"part\.parquet: no column may hold nulls"):
        prepare.main(Paths(job.base))


def test_an_image_too_large_to_decode_is_left_out_and_told_from_one_that_was_changed(
    job: Job, digits: list[Digit]
) -> None:
    job.base_set(digits[:40])
    large = os.urandom(7 * 1024 * 1024)
    etags = {"same": hashlib.md5(large, usedforsecurity=False).hexdigest(), "changed": "0" * 32}
    for name in etags:
        job.write_input(f"examples/ground-truth/images/{name}", large)
    job.dataset(
        labels=[label_line(n, "1", image=f"ground-truth/images/{n}", imageETag=etags[n]) for n in etags]
    )
    prepare.main(Paths(job.base))
    report = job.output("report/report.json")
    assert (report["unreadableExamples"], report["changedExamples"]) == (["same"], ["changed"])
