"""Once on a side, always on that side: what each version remembers for the next."""

from __future__ import annotations

import contextlib
import hashlib
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contract import Paths
from common.errors import RecordError
from common.imaging import decode, pixel_digest
from dataset import prepare
from dataset.memory import SIDES, keys, read_sides, write_sides
from dataset.near_duplicates import FEATURES, POINTS
from dataset.pictures import Place
from dataset.sides import HOLDOUT, ROW, TRAIN, Sides, divide, is_holdout
from tests.containers.conftest import Digit, Job, NewJob, capture_line, encode, label_line, lines

QUALITIES = (95, 90, 85)
BASE, ASKED, UPLOADED = "base", "asked", "uploaded"


class Shown(NamedTuple):
    """A picture as it comes: which one, how it is encoded, from where, with which label and at what hour."""

    picture: int
    encoding: int
    come: str
    label: str
    hour: int


class Pictures:
    """Digits whose compressed copies lie on either side by themselves, and others that are always there."""

    def __init__(self, digits: list[Digit]) -> None:
        held = [digit for digit in digits if side_alone(digit.png)]
        self.always = [*held[:2], *(digit for digit in digits[:14] if digit not in held)]
        encoded = [
            [d.png, *(encode(d.image, "JPEG", quality=quality) for quality in QUALITIES)]
            for d in digits[20:120]
        ]
        own = [[side_alone(content) for content in files] for files in encoded]
        torn = [number for number, sides in enumerate(own) if len(set(sides)) == 2]
        torn.sort(key=lambda number: own[number][0])
        self.files = [encoded[number] for number in (torn[0], torn[1], torn[-1])]


@pytest.fixture(scope="module")
def pictures(digits: list[Digit]) -> Pictures:
    return Pictures(digits)


def side_alone(content: bytes) -> bool:
    return is_holdout(pixel_digest(decode(content)), 0.2)


def version(job: Job, pictures: Pictures, shown: list[Shown]) -> None:
    """Write one dataset version."""
    job.base_set(pictures.always)
    labels, captures = [], []
    for number, (picture, encoding, come, label, hour) in enumerate(shown):
        name, content = f"{picture} {encoding} {come} {number}", pictures.files[picture][encoding]
        time = f"2026-11-22T{hour:02}:00:00Z"
        if come == BASE:
            job.write_input(f"base/{label}/{name}.png", content)
        elif come == ASKED:
            labels.append(label_line(name, label, "2026-11-22T12:00:00Z"))
            captures.append(capture_line(name, content, "0", time))
        else:
            key = f"ground-truth/images/{name}"
            labels.append(label_line(name, label, time, image=key))
            job.write_input(f"examples/{key}", content)
    job.dataset(labels=labels)
    job.write_input("capture/a.jsonl", lines(captures))


def prepared(job: Job, before: Job | None = None) -> dict[str, str]:
    """Prepare with what an earlier version remembers, as the snapshot hands it over."""
    if before is not None:
        job.write_input("dataset/sides.parquet", (before.outputs / "report/sides.parquet").read_bytes())
    prepare.main(Paths(job.base))
    return sides(job)


def remembered(job: Job) -> dict[tuple[int, int], bool]:
    rows = read_sides(job.outputs / "report/sides.parquet").iter_rows()
    return {(high, low): holdout for high, low, holdout in rows}


def written(job: Job) -> dict[str, bytes]:
    return {str(path.relative_to(job.outputs)): path.read_bytes() for path in job.outputs.rglob("*.parquet")}


def sides(job: Job) -> dict[str, str]:
    """Return the side of each picture that is trained on or held back, by its pixels."""
    return {
        pixel_digest(decode(image)): side
        for side in (TRAIN, HOLDOUT)
        for image in pl.read_parquet(job.outputs / side / "*.parquet")["image"]
    }


SHOWN = st.builds(
    Shown,
    st.integers(0, 2),
    st.integers(0, len(QUALITIES)),
    st.sampled_from([BASE, ASKED, UPLOADED]),
    st.sampled_from("57"),
    st.integers(0, 3),
)


@settings(max_examples=18, deadline=None)
@given(
    versions=st.lists(
        st.tuples(st.lists(SHOWN, max_size=5), st.sampled_from([0.1, 0.2, 0.5])), min_size=2, max_size=5
    )
)
def test_no_picture_is_ever_on_both_sides(
    pictures: Pictures, versions: list[tuple[list[Shown], float]]
) -> None:
    # Given versions in which pictures come, go, are relabelled, compressed anew and moved about
    seen: dict[str, str] = {}
    known: dict[tuple[int, int], bool] = {}
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        before = None
        for number, (shown, share) in enumerate(versions):
            job = Job(Path(directory) / str(number))
            version(job, pictures, shown)
            patch.setenv("HOLDOUT_SHARE", str(share))
            # When each knows what the one before has left
            found = prepared(job, before)
            # Then
            for digest, side in found.items():
                assert seen.setdefault(digest, side) == side, f"version {number}: {digest}"
            now = remembered(job)
            assert known.items() <= now.items()
            shown_keys = keys(pl.Series([bytes.fromhex(digest) for digest in found]))
            expected = [side == HOLDOUT for side in found.values()]
            assert [now[key] for key in shown_keys.iter_rows()] == expected
            before, known = job, now
        # And the last one, with its own memory, is the same again
        again = Job(Path(directory) / "again")
        version(again, pictures, shown)
        prepared(again, job)
        assert written(again) == written(job)


class Graph(NamedTuple):
    """Pictures that are only numbers, and which of them are copies of one another."""

    links: frozenset[frozenset[int]]

    def digest(self, number: int) -> bytes:
        return hashlib.sha256(b"%d" % number).digest()

    def divide(self, shown: list[tuple[int, int, int]], share: float, memory: pl.DataFrame) -> Sides:
        """Divide pictures that are shown as (number, kind, hour)."""
        rows = [
            (
                f"{n} {picture}",
                "7",
                kind,
                "",
                hour,
                hour,
                picture,
                0,
                0,
                False,
                self.digest(picture),
                n,
                1,
                False,
            )
            for n, (picture, kind, hour) in enumerate(shown)
        ]
        features = np.zeros((len(rows), FEATURES + 1 + POINTS), np.int16)
        return divide(
            pl.DataFrame(rows, schema=ROW, orient="row"),
            features,
            share,
            memory,
            lambda path, offset, length, captured: Place(str(path)),
            lambda pairs: [frozenset((int(a.path), int(b.path))) in self.links for a, b in pairs],
        )


LINKS = st.sets(st.frozensets(st.integers(0, 7), min_size=2, max_size=2), max_size=9).map(frozenset)
NUMBERED = st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(
    links=LINKS,
    versions=st.lists(
        st.tuples(st.lists(NUMBERED, min_size=1, max_size=10), st.sampled_from([0.2, 0.5])),
        min_size=1,
        max_size=5,
    ),
)
def test_copies_of_copies_are_never_on_both_sides_either(
    links: frozenset[frozenset[int]], versions: list[tuple[list[tuple[int, int, int]], float]]
) -> None:
    # Given pictures of which any may be copies of any others: what is found of real ones has no rule
    graph = Graph(links)
    memory = pl.DataFrame(schema=SIDES)
    for shown, share in versions:
        # When
        found = graph.divide(shown, share, memory)
        # Then what is on a side is where it has ever been
        assert memory.join(found.remembered, on=list(SIDES), how="anti").is_empty()
        assert found.remembered.select("high", "low").is_unique().all()
        side = {(high, low): holdout for high, low, holdout in found.remembered.iter_rows()}
        numbers = {next(keys(pl.Series([graph.digest(n)])).iter_rows()): n for n, _, _ in shown}
        left_out = {int(name.split()[1]) for name in found.undecided}
        placed = {number: side[key] for key, number in numbers.items() if number not in left_out}
        assert all(placed[a] == placed[b] for a, b in map(tuple, links) if a in placed and b in placed)
        # And the same again with what it adds to the memory
        again = graph.divide(shown, share, found.remembered)
        assert (again.digest(), again.undecided) == (found.digest(), found.undecided)
        assert again.remembered.equals(found.remembered)
        # And no newcomer is where a copy of it has not been
        known = {(high, low): holdout for high, low, holdout in memory.iter_rows()}
        of = {number: known.get(key) for key, number in numbers.items()}
        for one, other in ((a, b) for link in links for a, b in (sorted(link), sorted(link)[::-1])):
            if one in placed and of[one] is None and of.get(other) is not None:
                assert placed[one] == of[other]
        memory = found.remembered


def play(
    links: list[set[int]], *versions: list[tuple[int, int, int]]
) -> tuple[set[int], dict[str, set[int]]]:
    """Divide one version after the other; return which pictures the last one leaves out, and its sides."""
    graph, memory = Graph(frozenset(map(frozenset, links))), pl.DataFrame(schema=SIDES)
    for shown in versions:
        found = graph.divide(shown, 0.5, memory)
        memory = found.remembered
    sides = {
        side: {int(name.split()[1]) for name in rows["example_id"]} for side, rows in found.examples.items()
    }
    return {int(name.split()[1]) for name in found.undecided}, sides


def test_a_newcomer_is_not_held_back_beside_a_copy_that_was_trained_on() -> None:
    # Given 2 of the base set, trained on, and its copy 0; 1 is a copy of 0 alone and its pixels say holdout
    first = [(2, 0, 0), (0, 2, 0)]
    assert play([{2, 0}, {1, 0}], first) == (set(), {TRAIN: {0}, HOLDOUT: set()})
    # When it comes from the endpoint, so counts as there before the upload 0
    left_out, sides = play([{2, 0}, {1, 0}], first, [*first, (1, 1, 0)])
    # Then
    assert (left_out, sides) == ({0, 1}, {TRAIN: {2}, HOLDOUT: set()})


def test_what_has_a_side_keeps_it_beside_copies_that_have_lost_theirs() -> None:
    # Given 5 with its copy 6, and 2, all trained on; then 0, held back
    links, before = [{2, 0}, {5, 6}, {0, 6}], [(5, 0, 0), (2, 0, 0), (6, 2, 0)]
    # When 0 turns out to be a copy of 2, and of 6 too
    left_out, sides = play(links, before, [(0, 1, 0)], [*before, (0, 1, 0)])
    # Then
    assert (left_out, sides) == ({0, 2}, {TRAIN: {6}, HOLDOUT: set()})


def torn(pictures: Pictures, *, original_held: bool) -> tuple[int, int]:
    """Return a picture, and an encoding of it that lies on the other side than it does by itself."""
    for picture, files in enumerate(pictures.files):
        own = [side_alone(content) for content in files]
        if own[0] == original_held:
            return picture, own.index(not original_held)
    raise AssertionError(f"no digit of which only a copy lies on the other side: {original_held}")


def digest(pictures: Pictures, picture: int, encoding: int = 0) -> str:
    return pixel_digest(decode(pictures.files[picture][encoding]))


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("come", [ASKED, UPLOADED])
def test_a_copy_stays_where_its_original_was_when_that_goes(
    new_job: NewJob, pictures: Pictures, held: bool, come: str
) -> None:
    # Given a picture of the base set that users send again, compressed
    picture, encoding = torn(pictures, original_held=held)
    first, second, third, forgetful = (new_job(str(n)) for n in range(4))
    original, copy = Shown(picture, 0, BASE, "5", 1), Shown(picture, encoding, come, "5", 2)
    version(first, pictures, [original])
    version(second, pictures, [original, copy])
    for job in (third, forgetful):
        version(job, pictures, [copy])
    side = HOLDOUT if held else TRAIN
    assert prepared(first)[digest(pictures, picture)] == side
    assert prepared(second, first)[digest(pictures, picture, encoding)] == side
    # When the original goes
    found = prepared(third, second)
    # Then
    assert found[digest(pictures, picture, encoding)] == side
    assert prepared(forgetful)[digest(pictures, picture, encoding)] != side
    report = third.output("report/report.json")
    assert (report["rememberedPictures"], report["picturesElsewhere"]) == (len(pictures.always) + 2, 1)
    assert len(remembered(third)) == len(pictures.always) + 2


@pytest.mark.parametrize("come", [BASE, UPLOADED])
def test_a_copy_that_comes_later_moves_nothing(new_job: NewJob, pictures: Pictures, come: str) -> None:
    picture, encoding = torn(pictures, original_held=False)
    first, second = new_job("first"), new_job("second")
    copy = Shown(picture, encoding, UPLOADED, "5", 2)
    version(first, pictures, [copy])
    version(second, pictures, [copy, Shown(picture, 0, come, "5", 1)])
    assert prepared(first)[digest(pictures, picture, encoding)] == HOLDOUT
    assert prepared(second, first)[digest(pictures, picture, encoding)] == HOLDOUT
    assert second.output("report/report.json")["undecidedPictures"] == 0


def test_pictures_that_turn_out_to_be_copies_too_late_are_on_neither_side(
    new_job: NewJob, pictures: Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a picture that goes, then a copy of it, which nobody can know for one and lies on the other side
    picture, encoding = torn(pictures, original_held=True)
    jobs = [new_job(str(n)) for n in range(4)]
    original, copy = Shown(picture, 0, UPLOADED, "5", 1), Shown(picture, encoding, ASKED, "5", 2)
    for job, shown in zip(jobs, ([original], [copy], [original, copy], [original]), strict=True):
        version(job, pictures, shown)
    assert prepared(jobs[0])[digest(pictures, picture)] == HOLDOUT
    assert prepared(jobs[1], jobs[0])[digest(pictures, picture, encoding)] == TRAIN
    assert "neither side" not in caplog.text
    # When both are there
    found = prepared(jobs[2], jobs[1])
    # Then
    assert not {digest(pictures, picture), digest(pictures, picture, encoding)} & found.keys()
    report = jobs[2].output("report/report.json")
    assert report["undecidedPictures"] == 2
    assert report["undecidedExamples"] == [f"{picture} 0 uploaded 0", f"{picture} {encoding} asked 1"]
    assert "2 pictures are on neither side" in caplog.text
    assert "Keep one copy of each" in caplog.text
    # And each keeps its own side for when the other goes
    assert prepared(jobs[3], jobs[2])[digest(pictures, picture)] == HOLDOUT


def test_another_share_holds_for_new_pictures(
    new_job: NewJob, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_job("first")
    first.base_set(digits[:60])
    first.dataset()
    before = prepared(first)
    for share in (0.5, 0.1):
        # Given
        job = new_job(str(share))
        job.base_set(digits[:260])
        job.dataset()
        monkeypatch.setenv("HOLDOUT_SHARE", str(share))
        # When
        found = prepared(job, first)
        # Then
        assert before.items() <= found.items()
        new = [side for digest, side in found.items() if digest not in before]
        assert new.count(HOLDOUT) / len(new) == pytest.approx(share, abs=0.08)
        report = job.output("report/report.json")
        assert report["holdoutShare"] == share
        held = list(found.values()).count(HOLDOUT)
        assert report["holdoutShareReached"] == pytest.approx(held / 260, abs=1e-4)


TWO = pl.DataFrame([(1, 5, True), (7, 2, False)], schema=SIDES, orient="row")


def put(table: pl.DataFrame) -> Callable[[Path], None]:
    return lambda path: table.write_parquet(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_text("high,low,holdout"), ""),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), ""),
        (put(TWO.drop("low")), "its columns are high (UInt64), holdout (Boolean), not high (UInt64), low"),
        (put(TWO.cast({"high": pl.Int64})), "its columns are high (Int64), low (UInt64)"),
        (put(TWO.with_columns(more=1)), "holdout (Boolean), more (Int32), not high"),
        (put(TWO.with_columns(holdout=pl.lit(None, pl.Boolean))), "a picture has no digest or no side"),
        (put(TWO.reverse()), "or its rows are in another order"),
        (put(pl.concat([TWO[:1], TWO.with_columns(holdout=False)])), "a picture stands in it twice"),
    ],
    ids=["empty", "text", "cut off", "a column less", "another type", "one more", "null", "order", "twice"],
)
def test_a_memory_that_cannot_be_used_is_said_before_any_picture_is_read(
    job: Job, damage: Callable[[Path], object], reason: str
) -> None:
    # Given a dataset whose base set is not even there
    job.dataset()
    path = job.write_input("dataset/sides.parquet", b"")
    write_sides(TWO, path)
    assert read_sides(path).equals(TWO)
    damage(path)
    # When
    with pytest.raises(RecordError) as caught:
        prepare.main(Paths(job.base))
    # Then it says what, where and what to do
    assert str(caught.value).startswith("sides.parquet of the dataset cannot be used: ")
    assert reason in str(caught.value)
    assert "put back an earlier version of the object" in str(caught.value)


def test_whatever_is_damaged_is_told_and_never_a_crash(tmp_path: Path) -> None:
    path, chance = tmp_path / "sides.parquet", random.Random(1)
    write_sides(TWO, path)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(RecordError):
            assert read_sides(path).schema == SIDES
