"""Which examples a dataset version is made of, in this process: what a wrong rule would train on silently."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from common.contract import Paths
from common.errors import TooLittleDataError
from common.imaging import decode, pixel_digest
from dataset import prepare, shards
from dataset.sides import is_holdout
from tests.containers.conftest import Digit, Job, NewJob, capture_line, encode, label_line, lines


def rows(job: Job, *sides: str) -> pl.DataFrame:
    prepare.main(Paths(job.base))
    return pl.concat([pl.read_parquet(job.outputs / side / "*.parquet") for side in sides])


def digest(job: Job) -> str:
    found: str = job.output("report/report.json")["digest"]
    return found


def test_a_pictures_side_is_what_its_own_pixels_say(job: Job, digits: list[Digit]) -> None:
    # Another rule would be as good a one, but models in service have been trained on what it held back.
    job.base_set(digits[:150])
    job.dataset()
    for side, held_back in (("holdout", True), ("train", False)):
        found = rows(job, side)["image"].to_list()
        assert len(found) > 15
        assert {is_holdout(pixel_digest(decode(image)), 0.2) for image in found} == {held_back}


@pytest.mark.parametrize("newest", ["a", "b", "c"])
def test_of_several_statements_about_one_picture_the_newest_holds(
    job: Job, digits: list[Digit], newest: str
) -> None:
    # Given a picture that was uploaded under two keys, and came through the endpoint once
    job.base_set(digits[:60])
    times = {name: f"2026-11-22T1{int(name == newest)}:00:00Z" for name in "abc"}
    labels = [label_line(f"image:k/{name}", name, times[name], image=f"k/{name}") for name in "ab"]
    job.dataset(labels=[*labels, label_line("c", "c", times["c"])])
    job.write_input("examples/k/a", digits[60].png)
    job.write_input("examples/k/b", encode(digits[60].image.convert("RGB")))
    job.write_input("capture/a.jsonl", lines([capture_line("c", digits[60].png, "0")]))
    # When
    found = rows(job, "train", "holdout").filter(source="ground-truth")
    # Then
    assert found["label"].to_list() == [newest]
    report = job.output("report/report.json")
    assert (report["duplicates"], report["conflictingLabels"]) == (2, 2)


def test_the_digest_is_of_every_label_picture_and_byte(new_job: NewJob, digits: list[Digit]) -> None:
    some, one = digits[:60], digits[30]
    other = next(digit for digit in digits if digit.label != one.label)
    found = {}
    for name, label, image in (
        ("as it is", one.label, one.png),
        ("the same again", one.label, one.png),
        ("another label", other.label, one.png),
        ("another picture", one.label, one.drifted),
        ("the same pixels in other bytes", one.label, encode(one.image, compress_level=1)),
    ):
        job = new_job(name)
        job.base_set(digit for digit in some if digit is not one)
        job.write_input(f"base/{label}/{one.name}.png", image)
        job.dataset()
        prepare.main(Paths(job.base))
        found[name] = digest(job)
    assert found.pop("the same again") == found["as it is"]
    assert len(set(found.values())) == len(found) == 4


def test_a_dataset_without_anything_to_compare_on_is_refused_before_it_is_trained_on(job: Job) -> None:
    images = [Image.new("L", (8, 8), grey) for grey in range(0, 256, 40)]
    kept = [image for image in images if not is_holdout(pixel_digest(image), 0.2)]
    assert len(kept) > 3
    for number, image in enumerate(kept):
        job.write_input(f"base/{number % 2}/{number}.png", encode(image))
    job.dataset()
    with pytest.raises(TooLittleDataError, match=r"training examples with 2 labels and 0 holdout examples"):
        prepare.main(Paths(job.base))


def test_shards_are_cut_at_their_size_and_hold_everything_once(
    tmp_path: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
    images = [digit.png for digit in digits[:100]]
    examples = pl.DataFrame(
        {
            "example_id": [digit.name for digit in digits[:100]],
            "label": [digit.label for digit in digits[:100]],
            "source": "base",
            "time": "",
            "size": [len(image) for image in images],
        }
    )
    shards.write_shards(examples, iter(images), tmp_path)
    parts = [pl.read_parquet(path) for path in sorted(tmp_path.iterdir())]
    whole = pl.concat(parts)
    assert whole["image"].to_list() == images
    assert whole["example_id"].to_list() == examples["example_id"].to_list()
    assert whole["label"].to_list() == examples["label"].to_list()
    for part in parts[:-1]:
        sizes = part["image"].bin.size().to_list()
        assert sum(sizes[:-1]) < 1000 <= sum(sizes)
    assert len(parts) > 5
