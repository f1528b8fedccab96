"""The reconciliation of the inbox: against the real door, bucket, queue and rules, over HTTP."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cli import reingest
from cli.bucket import Bucket
from cli.forget import forgotten_key
from tests.cli.test_cli_data import INBOX, Loop, loop  # noqa: F401 - fixture
from tests.handlers.conftest import BUCKET, batch, record


@pytest.fixture
def later(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:  # noqa: F811 - fixture
    """The loop, an hour from now by S3's clock."""
    moment = datetime.now(UTC) + timedelta(hours=1)
    monkeypatch.setattr(Bucket, "now", lambda _: moment)
    return loop


def messages(clients: Any) -> list[Any]:
    """Take all messages out of the ingest queue."""
    sqs = clients("sqs")
    url = sqs.get_queue_url(QueueName="truthloop-ingest")["QueueUrl"]
    taken: list[Any] = []
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
        for message in found:
            taken.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return taken


def inbox(loop: Loop) -> tuple[bool, str]:  # noqa: F811 - the argument
    """What the doctor says of the inbox."""
    _, out, _ = loop("doctor", "--json")
    (said,) = [finding for finding in json.loads(out) if finding["name"] == "inbox"]
    return said["ok"], said["detail"]


def test_an_upload_whose_event_was_lost_is_found_and_sent_again(later: Loop, clients: Any) -> None:
    # Given: two versions of one key, of which the door has read the newer; one refused whole, one all bad
    key = f"{INBOX}app/a.jsonl"
    later.world.put(key, json.dumps(record("lost", "7")))
    later.upload("app/a.jsonl", record("read", "8"))
    later.upload("broken.jsonl.gz.xlsx", record("x", "1"))
    later.upload("bad.jsonl", "{")
    later.world.put(f"{INBOX}never-read.xlsx", b"nothing that the door takes")
    # When
    ok, detail = inbox(later)
    # Then
    assert not ok
    assert "2 uploads never came to the door" in detail
    assert "truthloop reingest" in detail
    said = later.json("reingest")
    assert sorted(item["key"] for item in said) == [key, f"{INBOX}never-read.xlsx"]
    # When: the door reads what was sent
    bodies = messages(clients)
    answer = later.world.run("ingest_ground_truth", batch(*bodies))
    # Then
    assert answer == {"batchItemFailures": []}
    assert later.accepted() == {"lost": "7", "read": "8"}
    assert inbox(later) == (True, "every upload was read")
    assert "nothing is to be sent again" in later.ok("reingest")
    assert messages(clients) == []


def test_to_send_an_upload_twice_changes_nothing(later: Loop, clients: Any) -> None:
    later.world.put(f"{INBOX}a.csv", b"inference_id,label\ni,7\n")
    assert "1 upload went to the door again" in later.ok("reingest")
    assert "1 upload went to the door again" in later.ok("reingest")
    later.world.run("ingest_ground_truth", batch(*messages(clients)))
    assert later.accepted() == {"i": "7"}


def test_uploads_without_a_record_and_deleted_ones_are_not_missed(later: Loop) -> None:
    blank = {"a.jsonl": b"", "b.jsonl": b"\n \n\r\n", "c.csv": b"inference_id,label\n"}
    blank["d.csv.gz"] = gzip.compress(blank["c.csv"])
    for name, content in blank.items():
        later.world.put(f"{INBOX}{name}", content)
        later.ingest(f"{INBOX}{name}")
    later.world.put(f"{INBOX}gone.jsonl", json.dumps(record("i", "7")))
    versions = later.world.s3.list_object_versions(Bucket=BUCKET, Prefix=f"{INBOX}gone")["Versions"]
    later.world.s3.delete_object(Bucket=BUCKET, Key=f"{INBOX}gone.jsonl", VersionId=versions[0]["VersionId"])
    assert inbox(later) == (True, "every upload was read")


def test_what_may_be_on_its_way_is_not_missed_yet(loop: Loop) -> None:  # noqa: F811 - fixture
    loop.world.put(f"{INBOX}a.jsonl", json.dumps(record("i", "7")))
    assert inbox(loop) == (True, "every upload was read")


def test_many_go_in_parts_and_are_named_in_part(later: Loop, clients: Any) -> None:
    for number in range(23):
        later.world.put(f"{INBOX}{number:02d}.jsonl", json.dumps(record(f"i{number}", "7")))
    said = later.ok("reingest")
    assert "23 uploads went to the door again" in said
    assert "and 3 more" in said
    assert len(messages(clients)) == 23


def test_an_event_that_the_queue_refuses_is_said(later: Loop, clients: Any, monkeypatch: Any) -> None:
    later.world.put(f"{INBOX}a.jsonl", json.dumps(record("i", "7")))
    sqs = clients("cli:sqs")
    refused = {"Failed": [{"Id": "0", "Code": "InternalError", "Message": "x", "SenderFault": False}]}
    monkeypatch.setattr(sqs, "send_message_batch", lambda **_: refused)
    assert f"did not take the event about {INBOX}a.jsonl (InternalError: x)" in later.refused("reingest")


def test_a_tombstone_is_dated_by_s3(later: Loop) -> None:
    """This machine's clock plays no part: it may be an hour slow."""
    later.upload("a.jsonl", record("i", "7", author="ann"))
    later.ok("forget", "--author", "ann", "--reason", "asked by mail", "--yes")
    before = json.loads(later.world.get(forgotten_key("ann")))["before"]
    assert before > (datetime.now(UTC) + timedelta(minutes=50)).isoformat()


def test_s3_says_what_time_it_is(loop: Loop, clients: Any) -> None:  # noqa: F811 - fixture
    assert abs(Bucket(clients("cli:s3"), BUCKET).now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert timedelta(minutes=5) < reingest.ON_ITS_WAY


def test_a_first_write_that_meets_another_is_a_change(loop: Loop, clients: Any) -> None:  # noqa: F811
    loop.serve("7")
    loop.upload("a.jsonl", record("i", "zebra"))
    client = clients("cli:s3")

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "ConditionalRequestConflict"}}, "PutObject")

    client.meta.events.register("before-call.s3.PutObject", refuse, unique_id="conflict")
    try:
        said = loop.refused("requeue", "--reason", "UNKNOWN_LABEL")
    finally:
        client.meta.events.unregister("before-call.s3.PutObject", refuse, unique_id="conflict")
    assert "was changed by somebody else meanwhile" in said
    assert len(loop.lines("ground-truth/quarantine/")) == 1
