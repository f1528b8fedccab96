"""The door: every record sent is accepted, quarantined or parked, and no delivery counts twice."""

from __future__ import annotations

import base64
import errno
import gzip
import io
import json
import random
from collections import Counter
from typing import Any

import pytest
from botocore.response import StreamingBody
from urllib3.exceptions import ReadTimeoutError

from tests.handlers.conftest import BUCKET, batch, record, uploaded
from truthloop.errors import TransientAwsError
from truthloop.wiring import Wiring

INBOX = "ground-truth/inbox/"


def upload(world: Any, name: str, lines: list[bytes | dict[str, Any]]) -> dict[str, Any]:
    content = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    return uploaded(INBOX + name, world.put(INBOX + name, content))


def read(world: Any, prefix: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for key in world.keys(f"ground-truth/{prefix}/")
        for line in world.get(key).splitlines()
    ]


@pytest.fixture
def published(world: Any) -> list[Any]:
    seen: list[Any] = world.answer("events.PutEvents", {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    return seen


def test_good_records_are_accepted_and_bad_ones_explained(world: Any, published: list[Any]) -> None:
    # Given
    good = record("i1", "7", author="ann", eventTime="2026-11-22T10:00:00+01:00", source="audit")
    event = upload(
        world,
        "a.jsonl",
        [good, b"{", b"\xff\xfe", {"x": 1}, record("i2", ""), record("i3", "7", eventTime="noon"), b""],
    )
    # When
    answer = world.run("ingest_ground_truth", batch(event))
    # Then
    assert answer == {"batchItemFailures": []}
    (accepted,) = read(world, "accepted")
    assert accepted["groundTruthData"] == {"data": "7", "encoding": "CSV"}
    metadata = accepted["eventMetadata"]
    assert metadata["eventId"] == "i1"
    assert metadata["eventTime"] == "2026-11-22T09:00:00.000000Z"
    assert (metadata["author"], metadata["source"]) == ("ann", "audit")
    assert metadata["sequencer"] == "1".rjust(40, "0") + ".0000000001"
    rejected = read(world, "quarantine")
    reasons = [entry["reason"] for entry in rejected]
    assert reasons == ["NOT_JSON", "NOT_UTF8", "BAD_SCHEMA", "BAD_LABEL", "BAD_TIME"]
    assert [entry["source"]["line"] for entry in rejected] == [2, 3, 4, 5, 6]
    assert base64.b64decode(rejected[1]["record"]) == b"\xff\xfe"
    content = world.get(INBOX + "a.jsonl")
    for entry in rejected:
        start = entry["source"]["byteOffset"]
        raw = entry["record"].encode() if entry["encoding"] == "utf-8" else base64.b64decode(entry["record"])
        assert content[start : start + len(raw)] == raw
    detail = json.loads(published[0]["Entries"][0]["Detail"])
    assert detail == {"bucket": BUCKET, "objects": 1, "accepted": 1, "quarantined": 5, "unknownLabels": 0}


def test_the_same_object_delivered_again_changes_nothing(world: Any, published: list[Any]) -> None:
    event = upload(world, "a.jsonl", [record("i1", "7"), b"{"])
    world.run("ingest_ground_truth", batch(event, event))
    before = {key: world.get(key) for key in world.keys("ground-truth/")}
    later = {**event, "time": "2026-11-23T10:00:00Z", "id": "another"}
    world.run("ingest_ground_truth", batch(later))
    assert {key: world.get(key) for key in world.keys("ground-truth/")} == before
    assert len(before) == 3


def test_a_message_that_fails_goes_back_alone(world: Any, published: list[Any]) -> None:
    good = upload(world, "a.jsonl", [record("i1", "7")])
    gone = uploaded(INBOX + "gone.jsonl", "")
    elsewhere = uploaded("base/x.jsonl", "v")
    stranger = uploaded(INBOX + "a.jsonl", "v", bucket="somebody-elses")
    answer = world.run(
        "ingest_ground_truth",
        batch("not json", good, gone, elsewhere, stranger, "[" * 100_000, {"detail": None}),
    )
    failed = [item["itemIdentifier"] for item in answer["batchItemFailures"]]
    assert failed == ["m0", "m2", "m3", "m4", "m5", "m6"]
    assert len(read(world, "accepted")) == 1


def test_an_old_version_is_read_and_not_the_newest(world: Any, published: list[Any]) -> None:
    first = upload(world, "a.jsonl", [record("i1", "7")])
    upload(world, "a.jsonl", [record("i1", "8")])
    world.run("ingest_ground_truth", batch(first))
    assert [entry["groundTruthData"]["data"] for entry in read(world, "accepted")] == ["7"]


def test_other_files_are_quarantined_as_not_supported(world: Any, published: list[Any]) -> None:
    event = upload(world, "labels.xlsx", [b"i1,7"])
    world.run("ingest_ground_truth", batch(event))
    (entry,) = read(world, "quarantine")
    assert (entry["reason"], entry["source"]["key"]) == ("NOT_SUPPORTED", INBOX + "labels.xlsx")
    assert entry.keys() == {"reason", "detail", "source"}
    assert (entry["source"]["line"], entry["source"]["byteOffset"]) == (0, 0)
    assert published == []


def test_a_label_that_the_served_model_does_not_know_is_quarantined(world: Any, published: list[Any]) -> None:
    world.put("runs/g00000001/evaluation/labels.json", ["7", "8"])
    uri = f"s3://{BUCKET}/runs/g00000001/evaluation/labels.json"
    world.register("g00000001", "new", "Approved", labelsUri=uri)
    world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "7"), record("i2", "x")])))
    (entry,) = read(world, "quarantine")
    assert (entry["reason"], entry["detail"]) == (
        "UNKNOWN_LABEL",
        "label 'x' is not one of the 2 labels of the served model",
    )


def test_the_label_set_is_kept_for_five_minutes(world: Any, published: list[Any]) -> None:
    world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "x")])))
    world.put("labels.json", ["7"])
    world.register("g00000001", "new", "Approved", labelsUri=f"s3://{BUCKET}/labels.json")
    world.run("ingest_ground_truth", batch(upload(world, "b.jsonl", [record("i2", "x")])))
    assert read(world, "quarantine") == []
    world.later(minutes=6)
    world.run("ingest_ground_truth", batch(upload(world, "c.jsonl", [record("i3", "x")])))
    assert len(read(world, "quarantine")) == 1


@pytest.mark.parametrize(
    ("uri", "content", "problem"),
    [
        ("s3://{bucket}/runs/g/labels.json", None, "does not exist"),
        ("s3://another-bucket/labels.json", None, "not in the data bucket"),
        ("labels.json", None, "labels.json"),
        ("s3://{bucket}/runs/g/labels.json", b'{"7": 1}', "not a list of labels"),
        ("s3://{bucket}/runs/g/labels.json", b"{", "Expecting"),
        ("s3://{bucket}/runs/g/labels.json", b"\xff", "decode"),
        ("s3://{bucket}/runs/g/labels.json", b"[" * 100_000, "recursion"),
    ],
)
def test_a_package_whose_labels_are_not_known_stops_nothing(
    world: Any,
    published: list[Any],
    caplog: pytest.LogCaptureFixture,
    uri: str,
    content: bytes | None,
    problem: str,
) -> None:
    # Given: somebody has registered and approved a package by hand
    if content is not None:
        world.put("runs/g/labels.json", content)
    world.register("g00000001", "new", "Approved", labelsUri=uri.format(bucket=BUCKET))
    # When
    answer = world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "zebra")])))
    # Then: every label is welcome, and the log says why
    assert answer == {"batchItemFailures": []}
    assert ids(world, "accepted") == {"i1"}
    (said,) = [line.message for line in caplog.records if "labelsUri" in line.message]
    assert "every label is welcome" in said
    assert problem in said


def test_a_label_set_that_s3_cannot_give_now_sends_the_whole_batch_back(world: Any) -> None:
    world.put("runs/g/labels.json", ["7"])
    world.register("g00000001", "new", "Approved", labelsUri=f"s3://{BUCKET}/runs/g/labels.json")
    world.fail("s3.GetObject", "SlowDown", status=503, times=9)
    with pytest.raises(TransientAwsError):
        world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "7")])))


def test_an_event_that_the_bus_does_not_take_sends_the_batch_back(world: Any) -> None:
    refused = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "x"}]}
    world.answer("events.PutEvents", refused)
    with pytest.raises(TransientAwsError, match="InternalFailure"):
        world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "7")])))


def test_a_throttled_read_parks_its_message_only(world: Any, published: list[Any]) -> None:
    events = [upload(world, f"{name}.jsonl", [record(name, "7")]) for name in "ab"]
    world.fail("s3.GetObject", "SlowDown", status=503, times=1)
    answer = world.run("ingest_ground_truth", batch(*events))
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == ["m0"]


def garbage(chooser: random.Random) -> bytes:
    """Return a record that is wrong somewhere, or right by chance."""
    whole = json.dumps(record("i", "7", eventTime="2026-11-22T10:00:00Z"))
    values: list[Any] = [
        None,
        1,
        -1e999,
        True,
        "",
        " ",
        "\ud800",
        "x" * 300,
        [],
        {},
        [[]],
        {"data": {}},
        "\x00",
        "7\n",
    ]
    match chooser.randrange(6):
        case 0:
            return chooser.randbytes(chooser.randrange(1, 60)).replace(b"\n", b" ")
        case 1:
            return whole[: chooser.randrange(1, len(whole))].encode()
        case 2:
            return json.dumps(chooser.choice(values)).encode()
        case 3:
            field = chooser.choice(["groundTruthData", "eventMetadata", "eventVersion"])
            return json.dumps({**json.loads(whole), field: chooser.choice(values)}).encode()
        case 4:
            key = chooser.choice(["eventTime", "author", "source"])
            mended = record("i", chooser.choice([*values, "7"]))
            mended["eventMetadata"][chooser.choice(["eventId", key])] = chooser.choice(values)
            return json.dumps(mended).encode()
    zipped = gzip.compress(b"x").replace(b"\n", b"")
    return chooser.choice([b"[" * 5000, b"9" * 5000, zipped, b'{"a":1}' * 9999])


def test_generated_garbage_is_all_accounted_for(world: Any, published: list[Any]) -> None:
    # Given
    chooser = random.Random(7)
    lines = [line for line in (garbage(chooser) for _ in range(3000)) if line.strip(b" \t\r")]
    # When
    answer = world.run("ingest_ground_truth", batch(upload(world, "garbage.jsonl", list(lines))))
    # Then
    assert answer == {"batchItemFailures": []}
    accepted, rejected = read(world, "accepted"), read(world, "quarantine")
    assert len(accepted) + len(rejected) == len(lines)
    assert len(rejected) > len(lines) / 2
    assert {entry["reason"] for entry in rejected} >= {"NOT_JSON", "NOT_UTF8", "BAD_SCHEMA", "TOO_LARGE"}
    # what was accepted can be read back
    claim = world.claim("one")
    world.run("snapshot_dataset", {"execution": claim["holder"], "generation": claim["generation"]})


def test_generated_messages_are_all_accounted_for(world: Any, published: list[Any]) -> None:
    chooser = random.Random(11)
    values: list[Any] = [None, 1, "", [], {}, "x", {"name": "b"}, {"key": INBOX}, {"object": 1}]
    bodies = []
    for _ in range(300):
        event = uploaded(INBOX + "missing.jsonl", "v")
        target = chooser.choice(
            [event, event["detail"], event["detail"]["object"], event["detail"]["bucket"]]
        )
        target[chooser.choice(sorted(target))] = chooser.choice(values)
        bodies.append(json.dumps(event))
    world.answer("s3.GetObject", {"Error": {"Code": "NoSuchKey"}}, status=404)
    answer = world.run("ingest_ground_truth", batch(*bodies))
    assert len(answer["batchItemFailures"]) == len(bodies)


def test_an_upload_that_is_too_large_is_quarantined_with_what_to_do(
    world: Any, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("truthloop.uploads.lines.MAXIMUM_OBJECT_BYTES", 100)
    large = upload(world, "large.jsonl", [record("i1", "7"), record("i2", "7")])
    small = upload(world, "small.jsonl", [b"{"])
    assert world.run("ingest_ground_truth", batch(large, small)) == {"batchItemFailures": []}
    reasons = {
        entry["source"]["key"]: (entry["reason"], entry["detail"]) for entry in read(world, "quarantine")
    }
    assert reasons[f"{INBOX}small.jsonl"][0] == "NOT_JSON"
    assert reasons[f"{INBOX}large.jsonl"][0] == "TOO_LARGE"
    assert "split it" in reasons[f"{INBOX}large.jsonl"][1]
    assert published == []


def test_what_there_is_no_time_for_goes_back_alone(world: Any, published: list[Any]) -> None:
    # Given: the clock jumps past the deadline while the first object is written
    events = [upload(world, f"{name}.jsonl", [record(name, "7")]) for name in ("a", "b", "c")]
    world.hook("before-call.s3.PutObject", lambda **_: world.later(seconds=220))
    # When
    answer = world.run("ingest_ground_truth", batch(*events), seconds=300)
    # Then
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]}
    assert len(read(world, "accepted")) == 1
    assert len(published) == 1


def test_an_upload_that_fills_the_disk_fails_alone(
    world: Any, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = upload(world, "full.jsonl", [b"{"])
    good = upload(world, "good.jsonl", [record("i1", "7")])

    class Full(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    files = iter([io.BytesIO(), Full(), io.BytesIO(), io.BytesIO()])
    monkeypatch.setattr("truthloop.uploads.spool.SpooledTemporaryFile", lambda **_: next(files))
    answer = world.run("ingest_ground_truth", batch(full, good))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert len(read(world, "accepted")) == 1


# -- formats -----------------------------------------------------------------------------------------------


def send(world: Any, name: str, content: bytes) -> dict[str, Any]:
    return uploaded(INBOX + name, world.put(INBOX + name, content))


def records_of(world: Any) -> list[tuple[str, str, str | None]]:
    return [
        (
            entry["eventMetadata"]["eventId"],
            entry["groundTruthData"]["data"],
            entry["eventMetadata"].get("image"),
        )
        for entry in read(world, "accepted")
    ]


IMAGE = "ground-truth/images/a.png"


@pytest.mark.parametrize(
    ("name", "content", "offsets"),
    [
        (
            "mixed.jsonl",
            json.dumps(record("i1", "7")).encode()
            + b'\n{"source-ref": "'
            + f"s3://{BUCKET}/{IMAGE}".encode()
            + b'", "label": "8"}\n{',
            (104, 201),
        ),
        ("rows.csv", b"i1,7\r\n", ()),
        ("header.CSV", b"\xef\xbb\xbflabel,inference_id,author\r\n7,i1,ann\r\n8\r\n", (39,)),
    ],
)
def test_every_format_is_read_and_packed_as_well(
    world: Any, published: list[Any], name: str, content: bytes, offsets: tuple[int, ...]
) -> None:
    # Given: the same content plain, packed, and packed in two members as `cat a.gz b.gz` joins them
    half = len(content) // 2
    members = gzip.compress(content[:half]) + gzip.compress(content[half:])
    uploads = [(name, content), (name + ".gz", gzip.compress(content)), ("2/" + name + ".gz", members)]
    seen = []
    for key, body in uploads:
        # When
        answer = world.run("ingest_ground_truth", batch(send(world, key, body)))
        # Then
        assert answer == {"batchItemFailures": []}
        accepted = records_of(world)
        rejected = read(world, "quarantine")
        places = [(entry["source"]["line"], entry["source"]["byteOffset"]) for entry in rejected]
        for entry in rejected:
            raw = entry["record"].encode()
            start = entry["source"]["byteOffset"]
            assert content[start : start + len(raw)] == raw
        seen.append((accepted, places))
        for part in (*world.keys("ground-truth/accepted/"), *world.keys("ground-truth/quarantine/")):
            world.s3.delete_object(Bucket=BUCKET, Key=part)
    assert seen[0] == seen[1] == seen[2]
    accepted, places = seen[0]
    assert accepted[0] == ("i1", "7", None)
    if name == "mixed.jsonl":
        assert accepted[1] == (f"image:{IMAGE}", "8", IMAGE)
    assert len(places) == len(offsets[-1:])


def test_an_accepted_line_says_where_it_came_from(world: Any, published: list[Any]) -> None:
    event = send(world, "a.csv.gz", gzip.compress(b"inference_id,label\n\ni1,7\n"))
    world.run("ingest_ground_truth", batch(event))
    (entry,) = read(world, "accepted")
    stored = world.s3.head_object(Bucket=BUCKET, Key=INBOX + "a.csv.gz")
    at = stored["LastModified"].strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    assert entry["origin"] == {
        "key": INBOX + "a.csv.gz",
        "versionId": stored["VersionId"],
        "line": 3,
        "byteOffset": 20,
        "uploadedAt": at,
    }
    assert entry["eventMetadata"]["eventTime"] == at
    assert entry["eventMetadata"]["sequencer"] == "1".rjust(40, "0") + ".0000000003"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl.gz", gzip.compress(json.dumps(record("i1", "7")).encode())[:-4], "BAD_GZIP"),
        ("a.jsonl.gz", json.dumps(record("i1", "7")).encode(), "BAD_GZIP"),
        ("a.csv.gz", gzip.compress(b"i1,7\n") + b"x", "BAD_GZIP"),
        ("a.csv.gz", b"", "BAD_GZIP"),
        ("a.csv.gz", gzip.compress(b"i1,7\n" * 30), "TOO_LARGE"),
        ("a.csv", b"i1,7\n" * 30, "TOO_LARGE"),
        ("lines.csv", b"i,7\n" * 21, "TOO_LARGE"),
        ("spool.csv", b"i,7\n" * 20, "TOO_LARGE"),
        ("a.json", b"{}", "NOT_SUPPORTED"),
    ],
)
def test_what_cannot_be_read_whole_is_rejected_whole(
    world: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: bytes,
    reason: str,
) -> None:
    # Given: small limits
    monkeypatch.setattr("truthloop.uploads.lines.MAXIMUM_OBJECT_BYTES", 140)
    monkeypatch.setattr("truthloop.uploads.lines.split_lines.__defaults__", (65_536, 20))
    if name == "spool.csv":
        monkeypatch.setattr("truthloop.uploads.spool.MAXIMUM_SPOOL_BYTES", 100)
    # When
    answer = world.run("ingest_ground_truth", batch(send(world, name, content)))
    # Then: one line says so, and nothing of it counts
    assert answer == {"batchItemFailures": []}
    (entry,) = read(world, "quarantine")
    assert entry.keys() == {"reason", "detail", "source"}
    assert (entry["reason"], entry["source"]["key"], entry["source"]["line"]) == (reason, INBOX + name, 0)
    assert read(world, "accepted") == []
    assert published == []


# -- crashes and label sets --------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


def approve(world: Any, generation: str, *labels: str) -> None:
    """Put a model into service that knows `labels`."""
    key = f"runs/{generation}/evaluation/labels.json"
    world.put(key, list(labels))
    world.register(generation, "new", "Approved", labelsUri=f"s3://{BUCKET}/{key}")


def ids(world: Any, prefix: str) -> set[str]:
    found = read(world, prefix)
    if prefix == "accepted":
        return {entry["eventMetadata"]["eventId"] for entry in found}
    return {json.loads(entry["record"])["eventMetadata"]["eventId"] for entry in found}


@pytest.mark.parametrize("crash", ["before-call.s3.PutObject", "after-call.s3.PutObject"])
@pytest.mark.parametrize(
    ("first", "then"), [(("7",), ("7", "x")), (("7", "x"), ("7",)), (("7",), ("x",)), (("x",), ())]
)
def test_no_record_is_lost_between_the_two_writes_when_the_label_set_changes(
    world: Any, published: list[Any], crash: str, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    # Given: the function dies around the write of the accepted object, once
    sent = {"i1": "7", "i2": "x", "i3": "y"}
    approve(world, "g00000001", *first)
    event = upload(world, "a.jsonl", [record(identifier, label) for identifier, label in sent.items()])
    lives, current = [1], [""]

    def die(**_: Any) -> None:
        if lives[0] and "/accepted/" in current[0]:
            lives[0] = 0
            raise Crash

    world.hook("before-call.s3.PutObject", lambda params, **_: current.__setitem__(0, params["url_path"]))
    world.hook(crash, die)
    with pytest.raises(Crash):
        world.run("ingest_ground_truth", batch(event))
    assert ids(world, "quarantine")
    # When: another model serves by the time that the message comes again
    approve(world, "g00000002", *then)
    world.later(minutes=6)
    assert world.run("ingest_ground_truth", batch(event)) == {"batchItemFailures": []}
    # Then
    assert ids(world, "accepted") | ids(world, "quarantine") == set(sent)
    accepted = read(world, "accepted")
    assert len(accepted) == len({entry["eventMetadata"]["eventId"] for entry in accepted})
    before = {key: world.get(key) for key in world.keys("ground-truth/")}
    assert world.run("ingest_ground_truth", batch(event)) == {"batchItemFailures": []}
    assert {key: world.get(key) for key in world.keys("ground-truth/")} == before


def test_quarantine_is_written_first(world: Any, published: list[Any]) -> None:
    keys: list[str] = []
    world.hook("before-call.s3.PutObject", lambda params, **_: keys.append(params["url_path"]))
    world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", [record("i1", "7"), b"{"])))
    assert ["/quarantine/" in key for key in keys] == [True, False]
    (name,) = world.keys("ground-truth/quarantine/")
    assert name.endswith(".any.jsonl")


def test_versions_in_the_wrong_order_are_ordered_by_their_sequencers(
    world: Any, published: list[Any]
) -> None:
    old = uploaded(INBOX + "a.jsonl", world.put(INBOX + "a.jsonl", record("i1", "7")), sequencer="FF")
    new = uploaded(INBOX + "a.jsonl", world.put(INBOX + "a.jsonl", record("i1", "8")), sequencer="0100")
    for event in (new, old, new, old):
        world.run("ingest_ground_truth", batch(event))
    statements = sorted(
        (
            entry["eventMetadata"]["eventTime"],
            entry["eventMetadata"]["sequencer"],
            entry["groundTruthData"]["data"],
        )
        for entry in read(world, "accepted")
    )
    assert [label for _, _, label in statements] == ["7", "8"]


def test_the_same_corrections_in_two_files_keep_their_two_origins(world: Any, published: list[Any]) -> None:
    lines: list[bytes | dict[str, Any]] = [record("i1", "7", author="ann", eventTime="2026-11-22T10:00:00Z")]
    world.run("ingest_ground_truth", batch(upload(world, "a.jsonl", lines), upload(world, "b.jsonl", lines)))
    first, second = read(world, "accepted")
    assert {first["origin"]["key"], second["origin"]["key"]} == {INBOX + "a.jsonl", INBOX + "b.jsonl"}
    for entry in (first, second):
        del entry["origin"]
    assert first == second


def test_a_message_that_comes_twice_in_a_batch_counts_once(world: Any, published: list[Any]) -> None:
    event = upload(world, "a.jsonl", [record("i1", "7")])
    world.run("ingest_ground_truth", batch(event, event))
    assert json.loads(published[0]["Entries"][0]["Detail"])["accepted"] == 1


# -- calls and counts --------------------------------------------------------------------------------------


def test_a_batch_of_a_hundred_makes_one_write_besides_its_objects(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    approve(world, "g00000001", "7")
    events = [
        upload(world, f"{number}.jsonl", [record(f"i{number}", "8" if number % 10 == 0 else "7")])
        for number in range(100)
    ]
    calls: list[tuple[str, str]] = []
    made = Wiring._client

    def watched(self: Wiring, service: str) -> Any:
        client = made(self, service)
        world.hook(f"before-call.{service}", note)
        return client

    def note(model: Any, params: Any, **_: Any) -> None:
        calls.append((model.name, params["url_path"]))

    monkeypatch.setattr(Wiring, "_client", watched)
    # When
    assert world.run("ingest_ground_truth", batch(*events)) == {"batchItemFailures": []}
    # Then
    counted = Counter(name for name, _ in calls)
    objects = [path for name, path in calls if name == "PutObject"]
    assert all("/ground-truth/accepted/" in path or "/ground-truth/quarantine/" in path for path in objects)
    assert counted == {
        "GetObject": 101,  # and the label set
        "PutObject": 100,
        "ListModelPackages": 1,
        "DescribeModelPackage": 1,
        "PutEvents": 1,
    }
    # no look-up at all for the next batch
    calls.clear()
    world.run("ingest_ground_truth", batch(events[1]))
    assert Counter(name for name, _ in calls) == {"GetObject": 1, "PutObject": 1, "PutEvents": 1}


def test_labels_that_are_new_to_the_model_are_counted_and_named(
    world: Any,
    published: list[Any],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    approve(world, "g00000001", "7")
    many = [record(f"i{number}", f"class {number % 30:02d}") for number in range(60)]
    first = upload(world, "a.jsonl", [record("i", "7"), *many])
    second = upload(world, "b.jsonl", [record("j", "another")])
    world.run("ingest_ground_truth", batch(first, second))
    (metrics,) = [line for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert json.loads(metrics)["UnknownLabels"] == [61.0]
    (logged,) = [vars(line) for line in caplog.records if line.message == "batch ingested"]
    assert logged["unknown"] == 61
    assert logged["unknown_labels"] == [f"class {number:02d}" for number in range(20)]
    assert json.loads(published[0]["Entries"][0]["Detail"])["unknownLabels"] == 61


class Dropped(io.BytesIO):
    """A connection that is reset when half of the answer has come."""

    def read(self, _: int | None = -1) -> bytes:
        if chunk := super().read(20):
            return chunk
        raise ReadTimeoutError(None, "http://localhost", "timed out")  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [io.BytesIO, Dropped], ids=["cut-short", "timed-out"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_an_answer_that_breaks_off_is_no_broken_file(
    world: Any, published: list[Any], broken: type[io.BytesIO], name: str
) -> None:
    # Given: the first answer ends in the middle of the object
    content = json.dumps(record("i1", "7")).encode() + b"\n" + json.dumps(record("i2", "7")).encode() + b"\n"
    body = gzip.compress(content) if name.endswith(".gz") else content
    event = send(world, name, body)
    left = [1]

    def cut(parsed: dict[str, Any], **_: Any) -> None:
        if left[0]:
            left[0] = 0
            parsed["Body"] = StreamingBody(broken(body[: len(body) // 2]), len(body))

    world.hook("after-call.s3.GetObject", cut)
    # When
    first = world.run("ingest_ground_truth", batch(event))
    # Then: nothing is decided about it, and the message comes again
    assert first == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert world.keys("ground-truth/accepted/") + world.keys("ground-truth/quarantine/") == []
    assert world.run("ingest_ground_truth", batch(event)) == {"batchItemFailures": []}
    assert [identifier for identifier, _, _ in records_of(world)] == ["i1", "i2"]
