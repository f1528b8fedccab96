"""Prepare, as the process that SageMaker starts."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from common.imaging import decode, pixel_digest
from dataset.sides import is_holdout
from tests.containers.conftest import Digit, Job, NewJob, capture_line, encode, label_line, lines


def side(job: Job, name: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((job.outputs / name).glob("*.parquet"))])


def pictures(job: Job, name: str) -> set[str]:
    return {pixel_digest(decode(image)) for image in side(job, name)["image"]}


def files(job: Job) -> dict[str, str]:
    return {
        str(path.relative_to(job.outputs)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(job.outputs.rglob("*"))
        if path.is_file()
    }


def base_table(digits: list[Digit]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "example_id": [digit.name for digit in digits],
            "image": [digit.png for digit in digits],
            "label": [digit.label for digit in digits],
        }
    )


def test_base_set_and_ground_truth_become_two_sides(job: Job, digits: list[Digit]) -> None:
    # Given a base set in both layouts, and labels of which one waits for its capture
    job.base_set(digits[:100])
    table = job.write_input("base/more/part.parquet", b"")
    base_table(digits[100:150]).write_parquet(table)
    corrected = digits[150:160]
    labels = [label_line(f"i{n}", digit.label) for n, digit in enumerate(corrected)]
    job.dataset(labels=[*labels, label_line("not captured yet", "3")], new=11)
    captures = [capture_line(f"i{n}", digit.drifted, "0") for n, digit in enumerate(corrected)]
    captures[0] = capture_line(None, corrected[0].drifted, "0", event_id="i0")  # no id given: the event's own
    del captures[1]["captureData"]["endpointOutput"]  # an endpoint may be set to capture requests alone
    captures.append(capture_line("never labelled", digits[0].png, "0"))
    job.write_input("capture/capture/endpoint/AllTraffic/2026/11/22/09/a.jsonl", lines(captures[:6]))
    job.write_input("capture/capture/endpoint/AllTraffic/2026/11/22/10/b.jsonl", lines(captures[6:]))
    # When
    job.run("training", "prepare")
    # Then
    report = job.output("report/report.json")
    train, holdout = side(job, "train"), side(job, "holdout")
    assert (report["base"], report["joined"], report["waitingForCapture"]) == (150, 10, 1)
    assert report["examples"] == {"train": len(train), "holdout": len(holdout)}
    assert len(train) + len(holdout) == 160
    assert sum(report["perLabel"]["train"].values()) == len(train)
    assert train.schema == {name: pl.Binary if name == "image" else pl.String for name in train.columns}
    assert train.columns == ["example_id", "image", "label", "source", "time"]
    both = pl.concat([train, holdout])
    assert set(both.filter(source="base")["time"]) == {""}
    joined = both.filter(source="ground-truth").sort("example_id")
    assert joined["label"].to_list() == [digit.label for digit in corrected]
    assert joined["image"].to_list() == [digit.drifted for digit in corrected]


def test_labelled_examples_are_trained_on_as_corrections_are(job: Job, digits: list[Digit]) -> None:
    # Given: two images that can be read, one that is no image, one that is gone, one that leads elsewhere
    job.base_set(digits[:60])
    keys = {name: f"ground-truth/images/2026/{name}" for name in ("a.png", "b.png", "broken.png", "gone.png")}
    keys["elsewhere.png"] = "ground-truth/images/../../../capture/picture.png"
    job.write_input("capture/picture.png", digits[63].drifted)
    labels = [label_line(f"image:{key}", "7", image=key) for key in keys.values()]
    job.dataset(labels=[*labels, label_line("i", "3")])
    job.write_input("capture/a.jsonl", lines([capture_line("i", digits[62].drifted, "0")]))
    job.write_input(f"examples/{keys['a.png']}", digits[60].drifted)
    job.write_input(f"examples/{keys['b.png']}", digits[61].drifted)
    job.write_input(f"examples/{keys['broken.png']}", b"no image")
    # When
    job.run("training", "prepare")
    # Then
    both = pl.concat([side(job, "train"), side(job, "holdout")]).filter(source="ground-truth")
    rows = sorted(both.select("example_id", "image", "label").rows())
    assert rows == [
        ("i", digits[62].drifted, "3"),
        (f"image:{keys['a.png']}", digits[60].drifted, "7"),
        (f"image:{keys['b.png']}", digits[61].drifted, "7"),
    ]
    report = job.output("report/report.json")
    assert (report["joined"], report["waitingForCapture"], report["labelledExamples"]) == (1, 0, 5)
    unreadable = sorted(f"image:{keys[name]}" for name in ("broken.png", "gone.png", "elsewhere.png"))
    assert report["unreadableExamples"] == unreadable


def test_an_image_that_was_changed_after_the_snapshot_is_not_trained_on(
    job: Job, digits: list[Digit]
) -> None:
    # Given: one as the snapshot saw it, one written over, and two whose ETag says nothing about the content
    job.base_set(digits[:60])
    etags = {
        "same": hashlib.md5(digits[60].drifted, usedforsecurity=False).hexdigest(),
        "changed": hashlib.md5(b"another picture", usedforsecurity=False).hexdigest(),
        "multipart": f"{'0' * 32}-2",
        "unknown": "not an MD5",
    }
    keys = {name: f"ground-truth/images/{name}.png" for name in etags}
    for number, key in enumerate(keys.values()):
        job.write_input(f"examples/{key}", digits[60 + number].drifted)
    job.dataset(
        labels=[label_line(f"image:{keys[n]}", "7", image=keys[n], imageETag=etags[n]) for n in etags]
    )
    # When
    job.run("training", "prepare")
    # Then
    both = pl.concat([side(job, "train"), side(job, "holdout")]).filter(source="ground-truth")
    assert set(both["example_id"]) == {f"image:{keys[n]}" for n in ("same", "multipart", "unknown")}
    report = job.output("report/report.json")
    assert (report["changedImages"], report["unreadableImages"]) == (1, 0)
    assert report["changedExamples"] == [f"image:{keys['changed']}"]


def test_the_output_does_not_depend_on_order_or_repetition(new_job: NewJob, digits: list[Digit]) -> None:
    labels = [label_line(f"i{n}", digit.label) for n, digit in enumerate(digits[80:120])]
    captures = [capture_line(f"i{n}", digit.drifted, "0") for n, digit in enumerate(digits[80:120])]
    one, other = new_job("one"), new_job("other")
    one.base_set(digits[:80])
    one.dataset(labels=labels)
    one.write_input("capture/a.jsonl", lines(captures))
    # The same in another order, another layout, another number of files, and everything twice.
    shuffled = random.Random(1).sample(digits[:80], 80)
    base_table([*shuffled, *shuffled[:30]]).write_parquet(other.write_input("base/z.parquet", b""))
    other.dataset(labels=[*reversed(labels), *labels])
    other.write_input("capture/y/b.jsonl", lines(captures[20:][::-1]))
    other.write_input("capture/x/a.jsonl", lines(captures))
    for job in (one, other):
        job.run("training", "prepare")
    prepared = {name: digest for name, digest in files(one).items() if not name.startswith("report")}
    assert prepared == {
        name: digest for name, digest in files(other).items() if not name.startswith("report")
    }
    assert one.output("report/report.json")["digest"] == other.output("report/report.json")["digest"]
    assert other.output("report/report.json")["duplicates"] == 30


def test_a_picture_is_never_on_both_sides_and_never_changes_sides(
    new_job: NewJob, digits: list[Digit]
) -> None:
    before, after = new_job("before"), new_job("after")
    for job in (before, after):
        job.base_set(digits[:150])
    before.dataset()
    before.run("training", "prepare")
    # The next version sees every picture of the base set again: as a correction, re-encoded, in colour,
    # and half of them with another label.
    again = [
        (f"i{n}", digit, digit.label if n % 2 else str((int(digit.label) + 1) % 10))
        for n, digit in enumerate(digits[:150])
    ]
    after.dataset(labels=[label_line(key, label) for key, _, label in again])
    reencoded = [
        capture_line(key, encode(digit.image.convert("RGB"), compress_level=1), "0")
        for key, digit, _ in again
    ]
    after.write_input("capture/a.jsonl", lines(reencoded))
    after.run("training", "prepare")
    for name in ("train", "holdout"):
        assert pictures(before, name) == pictures(after, name)
        assert set(side(after, name)["source"]) == {"ground-truth"}  # the newer statement stays
    assert not pictures(after, "train") & pictures(after, "holdout")
    report = after.output("report/report.json")
    assert (report["duplicates"], report["conflictingLabels"]) == (150, 75)


def test_the_newest_label_and_the_newest_capture_of_an_id_count(job: Job, digits: list[Digit]) -> None:
    job.base_set(digits[:60])
    old, new = digits[60], digits[61]
    times = (
        "2026-11-22T09:00:00+00:00",
        "2026-11-22T12:00:00+02:00",
        "2026-11-22T10:30:00",
    )  # 9:00, 10:00, 10:30
    job.dataset(
        labels=[
            label_line("i", label, time)
            for label, time in zip("132", (times[0], times[2], times[1]), strict=True)
        ]
    )
    job.write_input(
        "capture/a.jsonl",
        lines([capture_line("i", new.drifted, "0", times[2]), capture_line("i", old.drifted, "0", times[1])]),
    )
    job.run("training", "prepare")
    rows = pl.concat([side(job, "train"), side(job, "holdout")]).filter(source="ground-truth")
    assert rows.select("example_id", "image", "label", "time").rows() == [("i", new.drifted, "3", times[2])]


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(job: Job, digits: list[Digit]) -> None:
    job.base_set(digits[:60])
    job.write_input("base/3/broken.png", b"no image")
    job.write_input("base/3/notes.txt", b"no image either, and not named as one")
    job.dataset(labels=[label_line("good", "1"), label_line("bad", "1"), label_line("cut", "1")])
    cut = lines([capture_line("cut", digits[61].png, "0")])[:-20]
    odd = [{}, {"captureData": 1, "eventMetadata": {}}, capture_line("cut", b"", "0", time="yesterday"), 7]
    not_base64 = capture_line("cut", b"", "0")
    not_base64["captureData"]["endpointInput"]["data"] = "%%%"
    good = lines([capture_line("good", digits[60].drifted, "0"), capture_line("bad", b"GIF89a", "0")])
    job.write_input("capture/a.jsonl", good + "\n" + lines([*odd, not_base64]) + cut)  # type: ignore[list-item]
    log = job.run("training", "prepare")
    report = job.output("report/report.json")
    assert report["unreadableExamples"] == ["bad", "broken"]
    assert (report["unreadableImages"], report["joined"], report["waitingForCapture"]) == (2, 2, 1)
    assert (report["captureRecords"], report["malformedCaptureRecords"]) == (8, 6)
    assert "a.jsonl line 9 is no capture record" in log


def test_the_share_of_the_holdout_is_a_parameter_and_only_grows(new_job: NewJob, digits: list[Digit]) -> None:
    jobs = {share: new_job(share) for share in ("0.1", "0.5")}
    for share, job in jobs.items():
        job.base_set(digits[:300])
        job.dataset()
        job.run("training", "prepare", HOLDOUT_SHARE=share)
        assert len(side(job, "holdout")) / 300 == pytest.approx(float(share), abs=0.08)
    assert pictures(jobs["0.1"], "holdout") < pictures(jobs["0.5"], "holdout")


def test_the_side_is_decided_by_the_digest_alone() -> None:
    assert is_holdout("0" * 64, 0.01)
    assert not is_holdout("f" * 64, 0.9)
    assert [is_holdout("8" + "0" * 63, share) for share in (0.5, 0.51)] == [False, True]


def no_base_set(job: Job, digits: list[Digit]) -> str:
    return "BaseSetError: no base set: put *.parquet"


def parquet_without_labels(job: Job, digits: list[Digit]) -> str:
    base_table(digits[:3]).drop("label").write_parquet(job.write_input("base/part.parquet", b""))
    return "BaseSetError: part.parquet cannot be read as a base set"


def damaged_parquet(job: Job, digits: list[Digit]) -> str:
    job.write_input("base/part.parquet", b"PAR1 but no more")
    return "BaseSetError: part.parquet cannot be read as a base set"


def images_as_text(job: Job, digits: list[Digit]) -> str:
    table = base_table(digits[:3]).with_columns(image=pl.lit("text"))
    table.write_parquet(job.write_input("base/part.parquet", b""))
    return "BaseSetError: part.parquet: image must be binary (it is large_string)"


def one_label_only(job: Job, digits: list[Digit]) -> str:
    for n in range(30):
        job.write_input(f"base/1/{n}.png", encode(Image.new("L", (8, 8), n)))
    return "TooLittleDataError: too little data:"


def damaged_snapshot(job: Job, digits: list[Digit]) -> str:
    job.base_set(digits[:30])
    job.write_input("dataset/ground-truth.jsonl", '{"inferenceId": "i"}\n')
    return "RecordError:"


def label_that_is_a_number(job: Job, digits: list[Digit]) -> str:
    job.base_set(digits[:30])
    job.write_input("dataset/ground-truth.jsonl", lines([label_line("i", "1") | {"label": 1}]))
    return "RecordError:"


def time_that_is_none(job: Job, digits: list[Digit]) -> str:
    job.base_set(digits[:30])
    job.write_input("dataset/ground-truth.jsonl", lines([label_line("i", "1", "yesterday")]))
    return "RecordError:"


def label_that_is_no_json(job: Job, digits: list[Digit]) -> str:
    job.base_set(digits[:30])
    job.write_input("dataset/ground-truth.jsonl", lines([label_line("i", "1")]) + "{\n")
    return "RecordError:"


@pytest.mark.parametrize(
    "arrange",
    [
        no_base_set,
        parquet_without_labels,
        damaged_parquet,
        images_as_text,
        one_label_only,
        damaged_snapshot,
        label_that_is_a_number,
        time_that_is_none,
        label_that_is_no_json,
    ],
)
def test_what_makes_a_dataset_impossible_fails_with_the_reason(
    job: Job, digits: list[Digit], arrange: Any
) -> None:
    expected = arrange(job, digits)
    log = job.run("training", "prepare", code=2)
    assert job.failure.startswith(expected)
    assert "Traceback" not in log
    assert not list(job.outputs.rglob("*.parquet"))


def test_a_share_out_of_range_is_refused(job: Job) -> None:
    job.run("training", "prepare", code=2, HOLDOUT_SHARE="1.5")
    assert "environment variable HOLDOUT_SHARE is 1.5: it must be between 0.01 and 0.9" in job.failure


def test_an_unexpected_failure_is_told_with_its_stack(job: Job, digits: list[Digit]) -> None:
    job.base_set(digits[:30])
    job.dataset()
    job.write("processing/output/train", "a file where SageMaker makes a directory")
    log = job.run("training", "prepare", code=1)
    assert job.failure.startswith("FileExistsError: ")
    assert "Traceback" in log


@pytest.mark.parametrize("arguments", [(), ("serve",), ("train", "prepare")])
def test_an_unknown_entry_point_is_refused(job: Job, arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert "usage: python -m training {train|prepare|evaluate|monitor}" in job.run(
        "training", *arguments, code=2
    )
