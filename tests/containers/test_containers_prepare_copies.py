"""The same picture compressed anew: recognised, counted as one, and never on both sides."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from common.contract import Paths
from common.imaging import decode, pixel_digest
from dataset import near_duplicates as copies
from dataset import prepare
from dataset.near_duplicates import between, describe, first_of, links, same_picture
from dataset.sides import HOLDOUT, TRAIN, is_holdout
from tests.containers.conftest import Digit, Job, NewJob, capture_line, encode, label_line, lines


def saved(image: Image.Image, kind: str = "JPEG", **options: object) -> Image.Image:
    return Image.open(io.BytesIO(encode(image, kind, **options)))


def found(pictures: list[Image.Image]) -> list[tuple[int, int]]:
    features = np.stack([describe(picture) for picture in pictures])
    pairs = links(
        features,
        lambda pairs: np.array([same_picture(pictures[a], pictures[b]) for a, b in pairs.tolist()], bool),
    )
    return [(a, b) for a, b in pairs.tolist()]


def test_digits_compressed_anew_are_recognised_and_others_are_not(digits: list[Digit]) -> None:
    shown = [digit.image for digit in digits[:90]]
    originals = [saved(image, "PNG") for image in (*shown, *map(ImageOps.invert, shown))]
    qualities = (95, 85, 75, 60)
    pictures = originals + [saved(image, quality=quality) for quality in qualities for image in originals]
    count = len(originals)
    pairs = found(pictures)
    assert all(a % count == b % count for a, b in pairs)  # never two different digits
    recognised = {
        quality: sum(a < count and b // count == number for a, b in pairs)
        for number, quality in enumerate(qualities, 1)
    }
    assert (recognised[95], recognised[85]) == (count, count)
    assert recognised[75] >= 0.99 * count
    assert recognised[60] >= 0.95 * count


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [
        Image.fromarray(pixels[20 + 60 * n :][:300, 40 * n :][:, :300])
        for pixels in load_sample_images().images
        for n in range(2)
    ]


@pytest.mark.parametrize(
    "again",
    [
        lambda image: saved(image, quality=60),
        lambda image: saved(saved(image, quality=85), quality=70),
        lambda image: saved(saved(image, quality=80), "PNG"),
        lambda image: image.convert("RGBA"),
    ],
    ids=["JPEG", "JPEG twice", "PNG of a JPEG", "another mode"],
)
def test_photographs_compressed_anew_are_recognised(
    photos: list[Image.Image], again: Callable[[Image.Image], Image.Image]
) -> None:
    count = len(photos)
    assert found([*photos, *map(again, photos)]) == [(n, n + count) for n in range(count)]


def test_a_photograph_without_sharp_edges_is_recognised_when_it_was_scaled(photos: list[Image.Image]) -> None:
    flowers = photos[2:]
    again = [saved(photo.resize((270, 270), Image.Resampling.LANCZOS), quality=85) for photo in flowers]
    assert found([*flowers, *again]) == [(0, 2), (1, 3)]


def test_what_differs_in_a_detail_in_colour_or_in_shape_is_another_picture(photos: list[Image.Image]) -> None:
    photo = photos[0]
    marked = photo.copy()
    marked.paste((255, 255, 255), (100, 100, 116, 116))
    red, blue = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 60, 214))
    assert red.convert("L").getpixel((0, 0)) == blue.convert("L").getpixel((0, 0))
    for one, other in (
        (photo, marked),
        (saved(photo, quality=90), saved(marked, quality=60)),
        (red, blue),
        (Image.new("L", (8, 32)), Image.new("L", (32, 8))),
    ):
        assert not same_picture(one, other)


def test_what_is_transparent_is_compared_as_a_model_sees_it() -> None:
    wide = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    wide.paste((0, 200, 0, 255), (5, 5, 20, 20))
    black = Image.alpha_composite(Image.new("RGBA", wide.size, (0, 0, 0, 255)), wide).convert("RGB")
    assert same_picture(wide, black)
    assert not same_picture(wide, Image.new("RGB", wide.size, (255, 0, 0)))


@pytest.mark.parametrize(("count", "alike", "most"), [(20_000, True, 120_000), (5_000, False, 160_000)])
def test_blank_pages_are_not_compared_each_with_each(count: int, alike: bool, most: int) -> None:
    blank = describe(Image.new("L", (640, 480), 250))
    noise = np.random.default_rng(0).integers(-2, 3, (count, copies.FEATURES))
    features = np.tile(blank, (count, 1))
    features[:, : copies.FEATURES] += noise.astype(np.int16)
    compared = 0

    def confirm(pairs: copies.Pairs) -> copies.NDArray[np.bool_]:
        nonlocal compared
        compared += len(pairs)
        return np.full(len(pairs), alike)

    pairs = links(features, confirm)
    assert compared <= most
    assert len({later for _, later in pairs.tolist()}) == (count - 1 if alike else 0)


def test_a_picture_belongs_to_the_first_that_it_is_a_copy_of_and_to_none_between_the_sides() -> None:
    pairs = np.array([[0, 2], [1, 2], [2, 3], [1, 4], [4, 5]])
    firsts = first_of(6, pairs)
    assert firsts.tolist() == [0, 1, 0, 0, 1, 1]
    sides = [True, False, True, True, True, True]
    assert between(pairs, firsts, sides).tolist() == [False, False, True, True, False, False]
    assert between(pairs, firsts, [True] * 6).tolist() == [False] * 6


def prepared(job: Job) -> dict[str, set[str]]:
    """Run Prepare here and return the example ids of each side."""
    prepare.main(Paths(job.base))
    return {
        side: set(pl.read_parquet(job.outputs / side / "*.parquet")["example_id"])
        for side in (TRAIN, HOLDOUT)
    }


def test_no_holdout_picture_is_trained_on_as_a_compressed_copy(new_job: NewJob, digits: list[Digit]) -> None:
    # Given a base set, of which every picture comes again: half through the endpoint, half as an upload
    before, after = new_job("before"), new_job("after")
    for job in (before, after):
        job.base_set(digits[:80])
    sides = prepared(before)
    labels, captures = [], []
    for number, digit in enumerate(digits[:80]):
        copy = encode(digit.image, "JPEG", quality=(95, 85)[number % 4 // 2])
        if number % 2:
            labels.append(label_line(f"again {digit.name}", digit.label))
            captures.append(capture_line(f"again {digit.name}", copy, "0"))
            captures[-1]["captureData"]["endpointInput"]["observedContentType"] = "image/jpeg"
        else:
            labels.append(
                label_line(f"again {digit.name}", "8", image=f"ground-truth/images/{digit.name}.jpg")
            )
            after.write_input(f"examples/ground-truth/images/{digit.name}.jpg", copy)
    after.dataset(labels=labels)
    after.write_input("capture/a.jsonl", lines(captures))
    # When
    again = prepared(after)
    # Then every copy stands for its picture, where that has always been
    assert again == {side: {f"again {name}" for name in names} for side, names in sides.items()}
    report = after.output("report/report.json")
    assert (report["nearDuplicates"], report["duplicates"], report["undecidedPictures"]) == (80, 0, 0)
    assert report["conflictingLabels"] == sum(digit.label != "8" for digit in digits[:80:2])


def side_alone(content: bytes) -> bool:
    return is_holdout(pixel_digest(decode(content)), 0.2)


def test_a_picture_keeps_its_side_through_versions_that_grow(job: Job, digits: list[Digit]) -> None:
    # Given versions in which digits are added, sent again, compressed anew, relabelled and renamed
    chance = random.Random(4)
    job.base_set(digits[:60])
    labels: dict[str, dict[str, object]] = {}
    captures: list[dict[str, object]] = []
    seen: dict[int, set[str]] = {}
    hour = 0

    def send(number: int) -> None:
        name, digit = f"{number} {len(labels)}", digits[number]
        content = chance.choice(
            [digit.png, *(encode(digit.image, "JPEG", quality=quality) for quality in (95, 90, 85))]
        )
        if chance.random() < 0.5:
            labels[name] = label_line(name, digit.label, f"2026-11-22T{hour:02}:30:00Z")
            captures.append(capture_line(name, content, "0", f"2026-11-22T{hour:02}:00:00Z"))
        else:
            key = f"ground-truth/images/{name}"
            job.write_input(f"examples/{key}", content)
            labels[name] = label_line(name, digit.label, f"2026-11-22T{hour:02}:30:00Z", image=key)

    for hour in range(6):
        for _ in range(25):
            send(chance.randrange(30, 90))
        for name in chance.sample(sorted(labels), 8):  # said anew, and otherwise
            labels[name]["label"], labels[name]["eventTime"] = "5", f"2026-11-22T{hour:02}:45:00Z"
        job.write_input("capture/a.jsonl", lines(captures))
        job.dataset(labels=list(labels.values()))
        for path in job.outputs.rglob("*.parquet"):
            path.unlink()
        # When
        sides = prepared(job)
        # Then
        version: dict[int, set[str]] = {}
        for side, names in sides.items():
            for name in names:
                number = int(name.split()[0]) if " " in name else numbers(digits)[name]
                version.setdefault(number, set()).add(side)
                seen.setdefault(number, set()).add(side)
        assert all(len(sides) == 1 for sides in version.values())
    assert all(len(sides) == 1 for sides in seen.values())
    assert {side for sides in seen.values() for side in sides} == {TRAIN, HOLDOUT}


def numbers(digits: list[Digit]) -> dict[str, int]:
    return {digit.name: number for number, digit in enumerate(digits)}


def test_where_it_cannot_be_told_which_copy_came_first_none_is_taken(
    new_job: NewJob, digits: list[Digit]
) -> None:
    # Given two copies of one digit that lie on different sides by themselves
    def pair(digit: Digit) -> tuple[bytes, bytes] | None:
        contents = [digit.png, *(encode(digit.image, "JPEG", quality=quality) for quality in (95, 90, 85))]
        held = [content for content in contents if side_alone(content)]
        rest = [content for content in contents if not side_alone(content)]
        return (held[0], rest[0]) if held and rest else None

    contents = next(found for digit in digits[100:] if (found := pair(digit)))
    times = ("2026-11-22T08:00:00Z", "2026-11-22T09:00:00Z")
    asked, uploaded, based = new_job("asked"), new_job("uploaded"), new_job("based")
    for job in (asked, uploaded, based):
        job.base_set(digits[:60])
    asked.dataset(labels=[label_line("0", "1"), label_line("1", "1")])
    asked.write_input(
        "capture/a.jsonl", lines(capture_line(str(n), contents[n], "0", times[n]) for n in (0, 1))
    )
    keys = [f"ground-truth/images/{n}" for n in (0, 1)]
    uploaded.dataset(labels=[label_line(str(n), "1", times[n], image=keys[n]) for n in (0, 1)])
    for n in (0, 1):
        uploaded.write_input(f"examples/{keys[n]}", contents[n])
        based.write_input(f"base/1/{n}.png", contents[n])
    based.dataset()
    # When, then: of two requests the first decides
    sides = {job: prepared(job) for job in (asked, uploaded, based)}
    assert {"0", "1"} & sides[asked][HOLDOUT]
    assert not {"0", "1"} & sides[asked][TRAIN]
    for job in (uploaded, based):
        assert not {"0", "1"} & (sides[job][TRAIN] | sides[job][HOLDOUT])
        assert job.output("report/report.json")["undecidedPictures"] == 2
