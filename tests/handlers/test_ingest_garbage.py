"""Ten thousand bad records and ten thousand bad messages: each is accounted for, none is an exception."""

from __future__ import annotations

import base64
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest

from tests.handlers.conftest import BUCKET, batch, record, uploaded
from truthloop.versions.labels import Reader

pytestmark = pytest.mark.slow

INBOX = "ground-truth/inbox/"
RECORDS = 18_000
"""Of both runs; four of five are bad."""
MESSAGES = 10_000
PER_UPLOAD = 500
BOM = b"\xef\xbb\xbf"

VALUES: list[Any] = [
    None, True, 0, -1, 7, 7.0, -1e999, 10**30, float("nan"), "", " ", "\t", "\u3000", "\u200b", "\ud800",
    "\udfff7", "\x00", "7\x00", "7\n", "7\u2028", "\ufeff7", "x" * 129, "x" * 300, "ü" * 128, "7", "image:a",
    [], {}, [[]], ["7"], {"data": {}}, {"7": 7}, "\U0001f600", "a\u0301", "٧",
]  # fmt: skip
TIMES: list[Any] = [
    "2026-11-22T10:00:00Z", "2026-11-22T10:00:00.123456789Z", "2026-11-22", "20261122T100000Z", "2026-W47-7",
    "2026-326", "2026-11-22 10:00", "2026-11-22T10", "2026-11-22T10:00:00+24:00",
    "2026-11-22T10:00:00+00:00:30", "2026-02-30T10:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T23:59:60Z",
    "0000-01-01T00:00:00Z", "now", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
    "9999-12-31T23:59:59Z", "1732269600", 1732269600, "22.11.2026", "2026-11-22T10:00:00Z ",
    "\uff12026-11-22T10:00:00Z", "2" * 10_000, "-2026-11-22T10:00:00Z",
]  # fmt: skip
REFERENCES: list[Any] = [
    *VALUES, "ground-truth/images/a.png", f"s3://{BUCKET}/ground-truth/images/a.png", "s3://x/ground-truth/images/a",
    "ground-truth/images/../a", "ground-truth/images//a", "ground-truth/images/", "../ground-truth/images/a",
    "S3://B/ground-truth/images/a", "ground-truth/images/" + "x" * 1100, "file:///etc/passwd",
]  # fmt: skip


def correction(chooser: random.Random) -> dict[str, Any]:
    """Return a correction with one to three members that are something else."""
    whole = record("i", "7", eventTime="2026-11-22T10:00:00Z", author="ann", source="audit")
    for _ in range(chooser.randrange(1, 4)):
        parent = chooser.choice([whole, whole.get("groundTruthData"), whole.get("eventMetadata")])
        if not isinstance(parent, dict) or not parent:
            continue
        name = chooser.choice([*parent, "data", "eventId"])
        if chooser.randrange(5) == 0:
            parent.pop(name, None)
        else:
            parent[name] = chooser.choice(TIMES if name == "eventTime" else VALUES)
    return whole


def example(chooser: random.Random) -> dict[str, Any]:
    """Return a labelled example with any values."""
    whole = {
        "source-ref": chooser.choice(REFERENCES),
        "label": chooser.choice(VALUES),
        "eventTime": chooser.choice(TIMES),
        "author": chooser.choice(VALUES),
        "source": chooser.choice(["correction", "audit", "decision", *VALUES]),
        "groundTruthData": chooser.choice(VALUES),
    }
    for name in chooser.sample(sorted(whole), chooser.randrange(6)):
        del whole[name]
    return whole


def dumped(chooser: random.Random, value: Any) -> bytes:
    """Write JSON in one of the ways there are: escaped, or raw with what UTF-8 cannot hold."""
    return json.dumps(value, ensure_ascii=chooser.random() < 0.7).encode("utf-8", "surrogatepass")


def truncated(chooser: random.Random) -> bytes:
    line = dumped(chooser, chooser.choice([correction, example])(chooser))
    return line[: chooser.randrange(1, len(line))]


def swapped(chooser: random.Random) -> bytes:
    line = bytearray(dumped(chooser, record("i", "7", author="ann")))
    for _ in range(chooser.randrange(1, 4)):
        line[chooser.randrange(len(line))] = chooser.randrange(256)
    return bytes(line)


def cell(chooser: random.Random) -> bytes:
    value = chooser.choice([*TIMES, *VALUES, "i1", "7", "inference_id", "label", "author", "notes"])
    text = (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
    return chooser.choice([text, b'"' + text + b'"', b'"' + text, text + b'"', b' "' + text + b'"', b'""'])


def row(chooser: random.Random) -> bytes:
    cells = [cell(chooser) for _ in range(chooser.choice([1, 2, 2, 2, 2, 2, 3, 4]))]
    return chooser.choice([b",", b",", b",", b";", b"\t", b", "]).join(cells)


def one_off(chooser: random.Random) -> dict[str, Any]:
    """Return a record that is right but for its label, its time or its image."""
    reference = chooser.choice(REFERENCES)
    label, time = chooser.choice([(chooser.choice(VALUES), None), ("7", chooser.choice(TIMES))])
    return chooser.choice(
        [record("i", label, eventTime=time), {"source-ref": reference, "label": label, "eventTime": time}]
    )


JSON_KINDS: list[Callable[[random.Random], bytes]] = [
    lambda chooser: dumped(chooser, correction(chooser)),
    lambda chooser: dumped(chooser, example(chooser)),
    lambda chooser: dumped(chooser, one_off(chooser)),
    truncated,
    swapped,
    lambda chooser: dumped(chooser, chooser.choice([*VALUES, *TIMES])),
    lambda chooser: dumped(chooser, record("i", "7")) * 2,
]
CSV_KINDS: list[Callable[[random.Random], bytes]] = [
    row,
    lambda chooser: b"i1," + cell(chooser),
    lambda chooser: cell(chooser) + b",7",
]
OTHER_KINDS: list[Callable[[random.Random], bytes]] = [
    truncated,
    row,
    lambda chooser: chooser.randbytes(chooser.randrange(1, 60)),
    lambda chooser: bytes(chooser.randrange(1, 9)),
    lambda chooser: chooser.choice([BOM, b"\xff\xfe", b"\x1f\x8b\x08", b" ", b"\r"]) + row(chooser),
    lambda chooser: "{'i': '7'}".encode(chooser.choice(["utf-16", "utf-32", "cp037"])),
    lambda chooser: chooser.choice([b"[", b'{"a":', b"[{"]) * chooser.choice([10, 1_000]),
    lambda chooser: b"9" * chooser.choice([20, 5_000]),
]
LONG = [b"[" * 40_000, b'{"a":' * 13_000, b"9" * 65_536, b"9" * 65_537, b"x," * 40_000, b"\xff" * 90_000]


def garbage(chooser: random.Random, kinds: list[Callable[[random.Random], bytes]]) -> bytes:
    """Generate a record, which is one line: mostly of the file's own format."""
    if chooser.random() < 0.01:
        return chooser.choice(LONG)
    return chooser.choice(kinds if chooser.random() < 0.75 else OTHER_KINDS)(chooser).replace(b"\n", b" ")


def is_header(line: bytes) -> bool:
    """Whether a line of a CSV file names columns."""
    names = [name.strip(b' \t\xef\xbb\xbf"') for name in line.rstrip(b"\r").split(b",")]
    return sorted(names) == [b"inference_id", b"label"]


@pytest.mark.parametrize("labels", [None, ["7", "8"]], ids=["no-model", "model"])
def test_every_record_is_accepted_or_quarantined_byte_for_byte(world: Any, labels: list[str] | None) -> None:
    # Given: uploads of every format, in mixed line ends
    chooser = random.Random(7)
    if labels is not None:
        world.put("labels.json", labels)
        world.register("g00000001", "new", "Approved", labelsUri=f"s3://{BUCKET}/labels.json")
    world.answer("events.PutEvents", {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    contents: dict[str, bytes] = {}
    sent = 0
    for number in range(RECORDS // 2 // PER_UPLOAD):
        suffix = ("jsonl", "csv", "jsonl.gz", "csv.gz")[number % 4]
        kinds = CSV_KINDS if "csv" in suffix else JSON_KINDS
        body = chooser.choice([b"", BOM])
        for _ in range(PER_UPLOAD):
            body += garbage(chooser, kinds) + chooser.choice([b"\n", b"\n", b"\r\n", b"\n\n", b" \r\n"])
        unpacked = body.rstrip(b"\n") if number % 3 == 0 else body
        key = f"{INBOX}{number}.{suffix}"
        contents[key] = unpacked
        world.put(key, gzip.compress(unpacked, 1) if suffix.endswith(".gz") else unpacked)
        blank = [line.isspace() or not line for line in unpacked.removeprefix(BOM).split(b"\n")]
        headers = [is_header(line) for line in unpacked.split(b"\n")] if "csv" in suffix else []
        sent += blank.count(False) - headers.count(True)
    versions = {
        item["Key"]: item["VersionId"]
        for item in world.s3.list_object_versions(Bucket=BUCKET, Prefix=INBOX)["Versions"]
    }
    # When
    answer = world.run("ingest_ground_truth", batch(*(uploaded(key, versions[key]) for key in contents)))
    # Then: accepted + quarantined = sent
    assert answer == {"batchItemFailures": []}
    reader = Reader()
    accepted = [
        statement
        for key in world.keys("ground-truth/accepted/")
        for statement in reader.accepted(key, world.get(key).splitlines())
    ]
    rejected = [
        json.loads(line)
        for key in world.keys("ground-truth/quarantine/")
        for line in world.get(key).splitlines()
    ]
    print(sent, len(accepted), Counter(entry["reason"] for entry in rejected))
    assert len(accepted) + len(rejected) == sent
    assert len(rejected) > 0.7 * sent
    assert len(rejected) >= RECORDS // 2 * 0.7
    # each where it says, once
    places = {(entry["source"]["key"], entry["source"]["line"]) for entry in rejected}
    places |= {(statement.origin.key, statement.origin.line) for statement in accepted}
    assert len(places) == sent
    starts = {
        key: [0, *accumulate(len(line) + 1 for line in content.split(b"\n"))]
        for key, content in contents.items()
    }
    for entry in rejected:
        raw = entry["record"].encode() if entry["encoding"] == "utf-8" else base64.b64decode(entry["record"])
        content, start = contents[entry["source"]["key"]], entry["source"]["byteOffset"]
        assert content[start : start + len(raw)] == raw
        if entry["reason"] != "TOO_LARGE":
            assert content[start + len(raw) : start + len(raw) + 2].removeprefix(b"\r")[:1] in (b"\n", b"")
            mark = 3 if start == 3 and content.startswith(BOM) else 0
            assert starts[entry["source"]["key"]][entry["source"]["line"] - 1] + mark == start
    for statement in accepted:
        assert labels is None or statement.label in labels
        assert statement.inference_id.isprintable()
        assert len(statement.event_time) == len("2026-11-22T10:00:00.000000Z")
    # and every reason there is was met
    expected = {
        "NOT_JSON",
        "NOT_CSV",
        "NOT_UTF8",
        "BAD_SCHEMA",
        "BAD_LABEL",
        "BAD_IMAGE_REFERENCE",
        "BAD_TIME",
    }
    expected |= {"FUTURE_TIME", "TOO_LARGE"} | ({"UNKNOWN_LABEL"} if labels else set())
    assert {entry["reason"] for entry in rejected} == expected


def body(chooser: random.Random) -> str:
    """Return a message's body that names no object of the inbox that is there."""
    event = uploaded(INBOX + "missing.jsonl", "v")
    values = [*VALUES, *TIMES, {"name": "b"}, {"key": INBOX}, {"object": 1}, INBOX, "base/a.jsonl", BUCKET]
    for _ in range(chooser.randrange(1, 4)):
        detail = event.get("detail")
        inner = [detail.get("object"), detail.get("bucket")] if isinstance(detail, dict) else []
        parents = [value for value in (detail, *inner, event) if isinstance(value, dict) and value]
        parent = chooser.choice(parents)
        name = chooser.choice(
            [
                name
                for name in sorted(parent)
                if name in {"detail", "object", "bucket", "name", "key", "version-id", "sequencer"}
            ]
            or sorted(parent)
        )
        if chooser.randrange(5) == 0:
            del parent[name]
        else:
            parent[name] = chooser.choice(values)
        if not event:
            break
    text = json.dumps(event)
    match chooser.randrange(12):
        case 0:
            return text[: chooser.randrange(len(text))]
        case 1:
            return json.dumps(chooser.choice(values))
        case 2:
            return chooser.choice(["[" * 100_000, '{"detail":' * 20_000, "9" * 5_000, "", "\ud800", "\x00"])
        case 3:
            return text.replace(
                INBOX, chooser.choice([INBOX.upper(), "", "\\ud800", "ground-truth/", "\\u0000"])
            )
    return text


def test_every_bad_message_goes_back_alone(world: Any) -> None:
    # Given: no message names an object that is there
    chooser = random.Random(11)
    world.answer("s3.GetObject", {"Error": {"Code": "NoSuchKey", "Message": "gone"}}, status=404)
    # When
    failed = 0
    for _ in range(MESSAGES // 1000):
        answer = world.run("ingest_ground_truth", batch(*(body(chooser) for _ in range(1000))))
        failed += len({item["itemIdentifier"] for item in answer["batchItemFailures"]})
    # Then: parked = sent
    assert failed == MESSAGES
    assert world.keys("ground-truth/") == []
