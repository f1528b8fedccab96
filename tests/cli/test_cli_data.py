"""The commands that read and mend the data: against the real door, bucket and rules, over HTTP."""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from cli.__main__ import main
from cli.bucket import Bucket
from cli.forget import forgotten_key
from cli.stack import OUTPUTS, Stack
from tests.cli.conftest import deploy_preflight, template
from tests.handlers.conftest import (
    _LOADED,
    BUCKET,
    ENDPOINT,
    GROUP,
    PIPELINE,
    POLICY,
    TABLE,
    World,
    batch,
    record,
    uploaded,
)
from truthloop.retraining.report import report

ROOT = Path(__file__).resolve().parents[2]
INBOX = "ground-truth/inbox/"
QUARANTINE = "ground-truth/quarantine/"
ACCEPTED = "ground-truth/accepted/"
LABELS = "runs/g00000001/evaluation/labels.json"


class Killed(BaseException):
    """The command's process is killed at a call."""


class Loop:
    """A deployed loop, the command on it, and its door."""

    def __init__(self, world: World, clients: Any, capsys: Any, monkeypatch: Any) -> None:
        self.world = world
        self._capsys = capsys
        self._calls = 0
        self._kill_at = 0
        monkeypatch.setattr(Stack, "client", lambda _, service: clients(f"cli:{service}"))
        self._hooks = [(clients(f"cli:{service}"), "before-call") for service in ("s3", "dynamodb")]
        for client, event in self._hooks:
            client.meta.events.register(event, self._count, unique_id="truthloop-test")

    def close(self) -> None:
        for client, event in self._hooks:
            client.meta.events.unregister(event, self._count, unique_id="truthloop-test")

    def _count(self, **_: Any) -> None:
        self._calls += 1
        if self._calls == self._kill_at:
            raise Killed

    def __call__(self, *arguments: str, kill_at: int = 0) -> tuple[int, str, str]:
        """Run the command; returns exit code, output and errors. `kill_at`: killed at that AWS call."""
        self._calls, self._kill_at = 0, kill_at
        self._capsys.readouterr()
        code = main(arguments)
        out, err = self._capsys.readouterr()
        return code, out, err

    def ok(self, *arguments: str) -> str:
        """Run the command, which succeeds; returns its output."""
        code, out, err = self(*arguments)
        assert code == 0, err
        return out

    def json(self, *arguments: str) -> Any:
        """Run the command with --json."""
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """Run the command, which cannot; returns its one sentence."""
        code, _, err = self(*arguments)
        assert code == 1
        assert len(err.splitlines()) == 1, err
        return err

    def serve(self, *labels: str) -> None:
        """Approve a model that knows these labels; a new process at the door reads them."""
        self.world.put(LABELS, list(labels))
        self.world.register("g00000001", "new", "Approved", labelsUri=f"s3://{BUCKET}/{LABELS}")
        _LOADED.pop("ingest_ground_truth", None)

    def upload(self, name: str, *lines: Any) -> str:
        """Upload records and let the door read them; returns the key."""
        key = f"{INBOX}{name}"
        body = b"".join(
            (
                line
                if isinstance(line, bytes)
                else line.encode()
                if isinstance(line, str)
                else json.dumps(line).encode()
            )
            + b"\n"
            for line in lines
        )
        self.world.put(key, gzip.compress(body) if key.endswith(".gz") else body)
        self.ingest(key)
        return key

    def ingest(self, key: str) -> None:
        version = self.world.s3.head_object(Bucket=BUCKET, Key=key)["VersionId"]
        answer = self.world.run("ingest_ground_truth", batch(uploaded(key, version)))
        assert answer == {"batchItemFailures": []}

    def ingest_requeued(self) -> list[str]:
        """Let the door read what was requeued; returns the keys."""
        keys = self.world.keys(f"{INBOX}requeued/")
        for key in keys:
            self.ingest(key)
        return keys

    def lines(self, prefix: str) -> list[dict[str, Any]]:
        """Read every JSON line under a prefix."""
        return [
            json.loads(line) for key in self.world.keys(prefix) for line in self.world.get(key).splitlines()
        ]

    def accepted(self) -> dict[str, str]:
        """Return the accepted labels by id."""
        return {
            line["eventMetadata"]["eventId"]: line["groundTruthData"]["data"] for line in self.lines(ACCEPTED)
        }

    def versions(self, prefix: str) -> list[tuple[str, bool]]:
        answer = self.world.s3.list_object_versions(Bucket=BUCKET, Prefix=prefix)
        return [(item["Key"], item["IsLatest"]) for item in answer.get("Versions", [])]


@pytest.fixture
def loop(world: World, clients: Any, capsys: Any, monkeypatch: Any) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    values = {
        **dict.fromkeys(OUTPUTS, "unused"),
        "DataBucketName": BUCKET,
        "LoopTableName": TABLE,
        "PipelineName": PIPELINE,
        "ModelPackageGroupName": GROUP,
        "EndpointName": ENDPOINT,
    }
    clients("cloudformation").create_stack(StackName="truthloop", TemplateBody=template(values))
    made = Loop(world, clients, capsys, monkeypatch)
    yield made
    made.close()


# -- quarantine --------------------------------------------------------------------------------------------


def test_an_empty_quarantine_says_so(loop: Loop) -> None:
    assert "nothing is in quarantine" in loop.ok("quarantine")
    assert loop.json("quarantine") == []


def test_reasons_are_counted_and_missing_classes_named(loop: Loop, tmp_path: Path) -> None:
    loop.serve("7", "8")
    loop.upload("a.jsonl", record("1", "7"), "{no json", record("2", "zebra"), record("3", "zebra"))
    loop.upload("b.csv", "inference_id,label,author", "4,yak,ann", '5,"x')
    loop.upload("c.zip", "whole")

    text = loop.ok("quarantine")
    assert "Classes that the served model lacks: zebra × 2, yak × 1" in text
    assert "a.jsonl, line 2: {no json" in " ".join(text.split())
    found = {group["reason"]: group for group in loop.json("quarantine")}
    assert {reason: group["records"] for reason, group in found.items()} == {
        "UNKNOWN_LABEL": 3,
        "NOT_JSON": 1,
        "NOT_CSV": 1,
        "NOT_SUPPORTED": 1,
    }
    assert found["UNKNOWN_LABEL"]["missingClasses"] == {"zebra": 2, "yak": 1}
    assert found["NOT_JSON"]["example"]["source"]["line"] == 2

    assert [group["reason"] for group in loop.json("quarantine", "--reason", "NOT_CSV")] == ["NOT_CSV"]
    assert "nothing is in quarantine for NOPE" in loop.ok("quarantine", "--reason", "NOPE")

    file = tmp_path / "entries.jsonl"
    _, _, err = loop("quarantine", "--reason", "UNKNOWN_LABEL", "--save", str(file))
    assert f"{file} has 3 entries" in err
    assert [json.loads(line)["reason"] for line in file.read_text().splitlines()] == ["UNKNOWN_LABEL"] * 3
    assert "cannot be written" in loop.refused("quarantine", "--save", str(tmp_path / "no" / "folder"))


# -- requeue -----------------------------------------------------------------------------------------------


def test_a_class_that_the_new_model_knows_comes_back_by_reason(loop: Loop) -> None:
    loop.serve("7")
    loop.upload("a.jsonl", record("1", "zebra", eventTime="2026-11-20T10:00:00Z"), record("2", "zebra"), "{")
    loop.upload("b.csv", "inference_id,label,author", "3,zebra,ann")
    before = {
        line["source"]["line"]: line["source"]["uploadedAt"]
        for line in loop.lines(QUARANTINE)
        if line["source"]["key"].endswith("a.jsonl")
    }
    loop.serve("7", "zebra")

    text = loop.ok("requeue", "--reason", "UNKNOWN_LABEL")
    assert "3 records went back to ground-truth/inbox/requeued/ in 2 objects; 3 entries left" in text
    assert "3 × accepted" in text
    keys = loop.ingest_requeued()
    assert sorted(key.rsplit(".", 1)[-1] for key in keys) == ["csv", "jsonl"]
    assert loop.accepted() == {"1": "zebra", "2": "zebra", "3": "zebra"}
    said = {line["eventMetadata"]["eventId"]: line["eventMetadata"] for line in loop.lines(ACCEPTED)}
    assert said["1"]["eventTime"] == "2026-11-20T10:00:00.000000Z"
    # The others count from when they were first uploaded: a newer correction outranks them.
    assert said["2"]["eventTime"] == before[2]
    assert (said["3"]["author"], said["3"]["eventTime"][:4]) == ("ann", before[2][:4])
    assert [line["reason"] for line in loop.lines(QUARANTINE)] == ["NOT_JSON"]


def test_a_redelivery_does_not_bring_requeued_entries_back(loop: Loop) -> None:
    key = loop.upload("a.jsonl", "{")
    loop.ok("requeue", "--reason", "NOT_JSON")
    assert loop.lines(QUARANTINE) == []
    loop.ingest(key)
    assert loop.lines(QUARANTINE) == []


def test_what_the_door_refuses_again_comes_back_each_time(loop: Loop) -> None:
    loop.upload("a.jsonl", "{")
    for attempt in (1, 2, 3):
        text = loop.ok("requeue", "--reason", "NOT_JSON")
        assert "1 × NOT_JSON" in text
        assert "comes back to the quarantine" in text
        assert len(loop.ingest_requeued()) == attempt, "each time is an upload of its own"
        assert len(loop.lines(QUARANTINE)) >= 1


def test_mended_records_come_from_a_file(loop: Loop, tmp_path: Path) -> None:
    loop.upload("a.jsonl", "{broken", b"\xff\xfe", record("9", "7"))
    file = tmp_path / "entries.jsonl"
    loop.ok("quarantine", "--save", str(file))
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    by_reason = {entry["reason"]: entry for entry in entries}
    assert base64.b64decode(by_reason["NOT_UTF8"]["record"]) == b"\xff\xfe"
    by_reason["NOT_JSON"]["record"] = json.dumps(record("1", "3"))
    file.write_text(json.dumps(by_reason["NOT_JSON"]) + "\n\n")

    done = loop.json("requeue", str(file))
    assert done["records"] == done["removedFromQuarantine"] == done["uploadedObjects"] == 1
    assert done["foreseen"] == {"accepted": 1}
    loop.ingest_requeued()
    assert loop.accepted() == {"1": "3", "9": "7"}
    assert [entry["reason"] for entry in loop.lines(QUARANTINE)] == ["NOT_UTF8"]

    again = loop.json("requeue", str(file))
    assert (again["uploadedObjects"], again["uploadedBefore"], again["removedFromQuarantine"]) == (0, 1, 0)
    assert len(loop.world.keys(f"{INBOX}requeued/")) == 1
    # What is not text goes back as the bytes that it was.
    loop.ok("requeue", "--reason", "NOT_UTF8")
    assert b"\xff\xfe\n" in [loop.world.get(key) for key in loop.world.keys(f"{INBOX}requeued/")]


def test_labelled_examples_and_expired_labels_come_back_with_their_time(loop: Loop) -> None:
    example = {"source-ref": "ground-truth/images/a.png", "label": "zebra"}
    loop.serve("7")
    loop.upload("a.jsonl", example)
    # As the fold writes what has expired.
    expired = {
        "reason": "NO_CAPTURE",
        "detail": "no prediction '1' was captured",
        "source": {"bucket": BUCKET, "key": f"{INBOX}b.jsonl", "versionId": "v", "line": 1, "byteOffset": 0,
                   "uploadedAt": "2026-11-20T10:00:00.000000Z"},
        "record": json.dumps(record("1", "7", eventTime="2026-11-19T10:00:00.000000Z")),
        "encoding": "utf-8",
        "format": "jsonl",
    }  # fmt: skip
    loop.world.put(f"{QUARANTINE}no-capture/abc.jsonl", json.dumps(expired) + "\n")
    loop.serve("7", "zebra")
    loop.ok("requeue", "--reason", "UNKNOWN_LABEL")
    loop.ok("requeue", "--reason", "NO_CAPTURE")
    loop.ingest_requeued()
    assert loop.accepted() == {"1": "7", "image:ground-truth/images/a.png": "zebra"}
    assert loop.lines(QUARANTINE) == []
    times = {
        line["eventMetadata"]["eventId"]: line["eventMetadata"]["eventTime"] for line in loop.lines(ACCEPTED)
    }
    assert times["1"] == "2026-11-19T10:00:00.000000Z"


def test_whole_objects_and_cut_records_cannot_go_back_as_they_are(loop: Loop, tmp_path: Path) -> None:
    loop.upload("c.zip", "whole")
    loop.upload("a.jsonl", "x" * 70_000)
    whole = loop.json("requeue", "--reason", "NOT_SUPPORTED")
    assert (whole["records"], whole["wholeObjects"]) == (0, 1)
    assert "mend those files" in loop.ok("requeue", "--reason", "NOT_SUPPORTED")
    assert "were cut" in loop.ok("requeue", "--reason", "TOO_LARGE")
    assert len(loop.lines(QUARANTINE)) == 2
    file = tmp_path / "entries.jsonl"
    loop.ok("quarantine", "--reason", "NOT_SUPPORTED", "--save", str(file))
    assert "entry 1" in (said := loop.refused("requeue", str(file)))
    assert "whole object" in said


@pytest.mark.parametrize(
    ("mend", "said"),
    [
        (lambda _: "{", "line 2 of"),
        (lambda entry: json.dumps({**entry, "record": 7}), "line 2 of"),
        (lambda entry: json.dumps({**entry, "record": "a\nb"}), "exactly one line"),
        (lambda entry: json.dumps({**entry, "record": " "}), "exactly one line"),
        (lambda entry: json.dumps({**entry, "encoding": "base64"}), "line 2 of"),
        (lambda entry: json.dumps({"record": entry["record"]}), "line 2 of"),
    ],
)
def test_a_bad_line_of_a_file_changes_nothing(
    loop: Loop, tmp_path: Path, mend: Callable[[Any], str], said: str
) -> None:
    loop.upload("a.jsonl", "{", "{{")
    first, second = loop.lines(QUARANTINE)
    file = tmp_path / "entries.jsonl"
    file.write_text(f"{json.dumps(first)}\n{mend(second)}\n")
    assert said in loop.refused("requeue", str(file))
    assert loop.world.keys(f"{INBOX}requeued/") == []
    assert len(loop.lines(QUARANTINE)) == 2


def test_a_forgotten_persons_record_does_not_come_back_by_this_door(loop: Loop, tmp_path: Path) -> None:
    loop.serve("7")
    loop.upload("a.jsonl", record("1", "zebra", author="ann"), record("2", "zebra", author="bob"))
    loop.upload("b.jsonl", record("3", "7", author="ann"))
    file = tmp_path / "entries.jsonl"
    loop.ok("quarantine", "--save", str(file))
    assert forget(loop)[0] == 0
    loop.serve("7", "zebra")
    done = loop.json("requeue", "--reason", "UNKNOWN_LABEL")
    assert (done["records"], done["forgotten"]) == (1, 1)
    assert "1 record stayed: the author was forgotten" in loop.ok("requeue", str(file))
    loop.ingest_requeued()
    assert loop.accepted() == {"2": "zebra"}


def test_unknown_reasons_and_missing_files_are_one_sentence(loop: Loop, tmp_path: Path) -> None:
    assert "it is empty" in loop.refused("requeue", "--reason", "NOT_JSON")
    loop.upload("a.jsonl", "{")
    assert "nothing is in quarantine for NOPE: there are NOT_JSON" in loop.refused(
        "requeue", "--reason", "NOPE"
    )
    assert "cannot be read" in loop.refused("requeue", str(tmp_path / "nowhere"))


def test_a_requeue_that_is_killed_anywhere_loses_nothing_and_is_finished_by_the_next(loop: Loop) -> None:
    for number in range(3):
        loop.upload(f"{number}.jsonl", record(f"id-{number}", "7", source="nonsense"), "{")
    # The door took the label set of nobody; what is refused here is mended by hand below.
    kill_at, killed = 1, True
    while killed:
        try:
            loop("requeue", "--reason", "BAD_SCHEMA", kill_at=kill_at)
            killed = False
        except Killed:
            kill_at += 1
        sent = {
            json.loads(line)["eventMetadata"]["eventId"]
            for key in loop.world.keys(f"{INBOX}requeued/")
            for line in loop.world.get(key).splitlines()
        }
        left = {
            json.loads(entry["record"])["eventMetadata"]["eventId"]
            for entry in loop.lines(QUARANTINE)
            if entry["reason"] == "BAD_SCHEMA"
        }
        assert sent | left == {"id-0", "id-1", "id-2"}
    assert kill_at > 5
    assert left == set()
    assert [entry["reason"] for entry in loop.lines(QUARANTINE)] == ["NOT_JSON"] * 3


def test_somebody_elses_change_is_not_overwritten(loop: Loop) -> None:
    loop.upload("a.jsonl", "{", "[")
    (key,) = loop.world.keys(QUARANTINE)
    read = Bucket.put_once

    def meanwhile(bucket: Bucket, *given: Any) -> bool:
        loop.world.put(key, b"")
        return read(bucket, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "put_once", meanwhile)
        assert "changed by somebody else" in loop.refused("requeue", "--reason", "NOT_JSON")
    assert loop.world.get(key) == b""


# -- conflicts ---------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(loop: Loop, clients: Any) -> Loop:
    """The preflight function, whose settings say how disagreements are resolved."""
    deploy_preflight(clients, POLICY)
    return loop


def test_no_disagreement_says_so(deployed: Loop) -> None:
    assert "no authors disagree" in deployed.ok("conflicts")


def test_authors_who_disagree_are_listed_and_settled(deployed: Loop) -> None:
    deployed.serve("7", "8")
    deployed.world.captures("1", "2")
    deployed.upload(
        "a.jsonl", record("1", "7", author="ann", eventTime="2026-11-22T10:00:00Z"), record("2", "7")
    )
    deployed.upload("b.jsonl", record("1", "8", author="bob"), record("2", "7", author="bob"))
    before = deployed.world.keys("")

    (conflict,) = deployed.json("conflicts")
    assert conflict["id"] == "1"
    assert {s["author"]: s["label"] for s in conflict["statements"]} == {"ann": "7", "bob": "8"}
    text = deployed.ok("conflicts")
    assert "2026-11-22 10:00:00" in text
    assert "truthloop settle ID LABEL" in text
    assert deployed.world.keys("") == before, "looking writes nothing"

    assert "the door would refuse this (UNKNOWN_LABEL)" in deployed.refused("settle", "1", "nine")
    assert "1 is 8, says ann" in deployed.ok("settle", "1", "8", "--author", "ann")
    (key,) = deployed.world.keys(f"{INBOX}decisions/")
    deployed.ingest(key)
    assert deployed.json("conflicts") == []
    # Settled otherwise, and back again: each is newer than the one before.
    for label in ("7", "8"):
        deployed.ok("settle", "1", label, "--author", "ann")
    assert [latest for named, latest in deployed.versions(key)].count(False) == 1


def test_a_labelled_example_is_settled_by_its_image(deployed: Loop) -> None:
    settled = deployed.json("settle", "image:ground-truth/images/a.png", "7")
    record_ = settled["record"]
    assert (record_["source-ref"], record_["source"]) == ("ground-truth/images/a.png", "decision")
    assert record_["author"], "the caller's own name"
    deployed.ingest(settled["key"])
    assert deployed.accepted() == {"image:ground-truth/images/a.png": "7"}


def test_a_majority_setting_leaves_only_what_it_cannot_resolve(deployed: Loop, clients: Any) -> None:
    deployed.world.captures("1", "2")
    for author, label in (("ann", "7"), ("bob", "7"), ("cid", "8")):
        deployed.upload(f"{author}.jsonl", record("1", label, author=author))
    deployed.upload("d.jsonl", record("2", "7", author="ann"))
    deployed.upload("e.jsonl", record("2", "8", author="bob"))
    assert [c["id"] for c in deployed.json("conflicts")] == ["1", "2"]
    deploy_preflight(clients, {**POLICY, "conflictResolution": "majority"})
    assert [c["id"] for c in deployed.json("conflicts")] == ["2"]


def test_a_broken_tombstone_is_one_sentence(deployed: Loop) -> None:
    deployed.world.put("ground-truth/forgotten/x.json", "{")
    assert "forgotten" in deployed.refused("conflicts")


# -- forget ------------------------------------------------------------------------------------------------


def forget(loop: Loop, *more: str, author: str = "ann", kill_at: int = 0) -> tuple[int, str, str]:
    arguments = ("forget", "--author", author, "--reason", "asked by mail", "--yes", *more)
    return loop(*arguments, kill_at=kill_at)


def people(loop: Loop) -> None:
    """Two people's records, in all kinds of uploads."""
    loop.serve("7", "8")
    loop.upload(
        "both.jsonl", record("1", "7", author="ann"), record("2", "8", author="bob"), record("3", "7")
    )
    loop.upload("ann.csv.gz", "inference_id,label,author", "4,7,ann", "5,8,ann")
    loop.upload("bob.jsonl", record("6", "8", author="bob"))
    loop.upload(
        "bad.jsonl", record("7", "zebra", author="ann"), record("8", "zebra", author="bob"), '{"ann": '
    )
    loop.upload("bad.zip", "ann")


def test_a_person_is_forgotten_and_nobody_else(loop: Loop) -> None:
    people(loop)
    statements = {"inferenceId": "1", "author": "ann"}
    loop.world.put("datasets/g00000001/statements.jsonl", json.dumps(statements) + "\n")

    code, out, err = forget(loop)
    assert (code, err) == (0, "")
    assert loop.accepted() == {"2": "8", "3": "7", "6": "8"}
    assert len(loop.world.keys(ACCEPTED)) == 3, "the keys stay: a redelivery writes them once only"
    assert all(latest for _, latest in loop.versions(ACCEPTED)), "no older version is left"
    tombstone = json.loads(loop.world.get(forgotten_key("ann")))
    assert (tombstone["version"], tombstone["records"], tombstone["objects"]) == (1, 3, 2)
    assert (tombstone["reason"], tombstone["by"][:4]) == ("asked by mail", "arn:")
    (item,) = (item for item in loop.world.decisions() if item["outcome"] == "FORGOTTEN")
    assert item["at"] == tombstone["before"]
    assert "3 records in 2 accepted objects" in item["message"]
    assert '"ann"' not in json.dumps(item, default=str), "the log keeps the hash, not the name"
    # What still holds the person's words is listed, and only that.
    for name in ("both.jsonl", "ann.csv.gz", "bad.jsonl", "bad.zip"):
        assert f"{INBOX}{name}" in out
    assert "bob.jsonl" not in out
    assert "datasets/g00000001/statements.jsonl" in out
    for key in list(loop.world.keys(INBOX)):
        if not key.endswith(".zip"):
            loop.ingest(key)
    assert loop.accepted() == {"2": "8", "3": "7", "6": "8"}


def test_the_uploads_go_too_when_asked(loop: Loop) -> None:
    people(loop)
    loop.world.put(f"{INBOX}both.jsonl", "another version that nobody has ingested, by ann")
    code, out, _ = forget(loop, "--inbox", "--json")
    assert code == 0
    told = json.loads(out)
    assert [item["key"] for item in told["inboxNotIngested"]] == [f"{INBOX}both.jsonl"]
    assert told["tombstone"]["uploads"] == 4
    assert {key for key, _ in loop.versions(INBOX)} >= {f"{INBOX}both.jsonl", f"{INBOX}bob.jsonl"}
    assert f"{INBOX}ann.csv.gz" not in loop.world.keys(INBOX)
    left = loop.lines(QUARANTINE)
    assert [entry["record"] for entry in left if entry["reason"] == "UNKNOWN_LABEL"] == [
        json.dumps(record("8", "zebra", author="bob"))
    ]
    assert all(latest for _, latest in loop.versions(QUARANTINE))


def test_forgetting_twice_is_forgetting_once(loop: Loop) -> None:
    people(loop)
    forget(loop)
    versions, items = loop.versions(""), loop.world.decisions()
    code, out, _ = forget(loop)
    assert code == 0
    assert "ground-truth/inbox/both.jsonl" in out
    assert (loop.versions(""), loop.world.decisions()) == (versions, items)


def test_what_a_forgotten_person_says_later_counts_and_can_be_forgotten_again(loop: Loop) -> None:
    people(loop)
    forget(loop)
    loop.upload("later.jsonl", record("9", "7", author="ann"))
    assert "9" in loop.accepted()
    time.sleep(1)  # S3's clock shows seconds, and a decision is named after the moment
    forget(loop)
    assert "9" not in loop.accepted()
    assert sum(item["outcome"] == "FORGOTTEN" for item in loop.world.decisions()) == 2


def test_an_interrupted_forget_is_finished_by_the_next_whereever_it_was_killed(loop: Loop) -> None:
    kill_at, killed, began = 1, True, False
    while killed:
        if not began:
            people(loop)
            began = True
        try:
            assert forget(loop, "--inbox", kill_at=kill_at)[0] == 0
            killed = False
        except Killed:
            kill_at += 1
    end = loop.accepted()
    assert end == {"2": "8", "3": "7", "6": "8"}
    assert all(latest for _, latest in loop.versions(ACCEPTED))
    (item,) = (item for item in loop.world.decisions() if item["outcome"] == "FORGOTTEN")
    assert (item["evidence"]["records"], item["evidence"]["objects"]) == (3, 2), "counted once, all of it"
    assert json.loads(loop.world.get(forgotten_key("ann")))["before"] == item["at"]
    assert kill_at > 15


def test_nothing_is_deleted_that_nobody_confirmed(loop: Loop, monkeypatch: Any) -> None:
    people(loop)
    before = loop.versions("")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = loop.refused("forget", "--author", "ann", "--reason", "asked")
    assert "3 records in 2 accepted objects" in said
    assert "say --yes" in said
    answers = io.StringIO("no\nyes\n")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", answers)
    code, _, err = loop("forget", "--author", "ann", "--reason", "asked")
    assert (code, "nothing was done" in err) == (1, True)
    assert loop.versions("") == before
    assert loop("forget", "--author", "ann", "--reason", "asked")[0] == 0
    assert "1" not in loop.accepted()


def test_who_is_not_there_cannot_be_forgotten(loop: Loop) -> None:
    people(loop)
    before = loop.versions("")
    assert "spelt as in the records" in forget(loop, author="anna")[2]
    assert "must not be empty" in forget(loop, author=" ")[2]
    assert "without the name" in loop.refused("forget", "--author", "ann", "--reason", "ann asked", "--yes")
    assert loop.versions("") == before


def test_a_version_that_s3_does_not_delete_is_said(loop: Loop, clients: Any) -> None:
    people(loop)

    def refuse(**_: Any) -> Any:
        error = {"Key": "k", "VersionId": "v", "Code": "AccessDenied", "Message": "no"}
        return AWSResponse("", 200, {}, None), {
            "ResponseMetadata": {"HTTPStatusCode": 200},
            "Errors": [error],
        }

    clients("cli:s3").meta.events.register("before-call.s3.DeleteObjects", refuse, unique_id="refuse")
    try:
        code, _, err = forget(loop)
    finally:
        clients("cli:s3").meta.events.unregister("before-call.s3.DeleteObjects", refuse, unique_id="refuse")
    assert code == 1
    assert "S3 did not delete version v of k (AccessDenied: no)" in err
    assert forget(loop)[0] == 0
    assert all(latest for _, latest in loop.versions(ACCEPTED))


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("s3.ListObjectsV2", ("quarantine",)),
        ("s3.PutObject", ("requeue", "--reason", "UNKNOWN_LABEL")),
        ("s3.PutObject", ("settle", "1", "7")),
        ("s3.ListObjectVersions", ("forget", "--author", "ann", "--reason", "x", "--yes")),
        ("s3.GetObject", ("forget", "--author", "ann", "--reason", "x", "--yes")),
        ("dynamodb.Query", ("decisions",)),
    ],
)
def test_a_denied_call_is_one_sentence_that_names_it(
    loop: Loop, clients: Any, operation: str, arguments: tuple[str, ...]
) -> None:
    people(loop)

    def deny(**_: Any) -> Any:
        error = {"Code": "AccessDenied", "Message": "not authorized"}
        return AWSResponse("", 403, {}, None), {"ResponseMetadata": {"HTTPStatusCode": 403}, "Error": error}

    service = operation.split(".")[0]
    clients(f"cli:{service}").meta.events.register(f"before-call.{operation}", deny, unique_id="deny")
    try:
        said = loop.refused(*arguments)
    finally:
        clients(f"cli:{service}").meta.events.unregister(f"before-call.{operation}", deny, unique_id="deny")
    assert operation.split(".")[1] in said
    assert "AccessDenied" in said


# -- decisions ---------------------------------------------------------------------------------------------


def test_a_generation_is_told_as_it_was_mailed(loop: Loop) -> None:
    claim = loop.world.claim("one", {"force": True, "reason": "to see"})
    empty = dict.fromkeys(("outcome", "message", "preflight", "dataset", "decision", "error"))
    keys = {"execution": claim["holder"], "generation": claim["generation"]}
    answer = loop.world.run("release_run", {**empty, **keys, "outcome": "FAILED", "message": "it broke"})

    assert loop.ok("decisions", claim["generation"]) == answer["report"] + "\n"
    assert loop.ok("decisions", "1") == answer["report"] + "\n"
    (item,) = loop.json("decisions", claim["generation"])
    assert report(item) == answer["report"]
    assert "no such decision" in loop.ok("decisions", "g00000099")


def test_the_log_is_filtered_by_outcome_and_time(loop: Loop) -> None:
    people(loop)
    forget(loop)
    assert [item["outcome"] for item in loop.json("decisions", "--outcome", "forgotten")] == ["FORGOTTEN"]
    assert loop.json("decisions", "--outcome", "REFUSED") == []
    assert len(loop.json("decisions", "--since", "1h")) == 1
    assert len(loop.json("decisions", "--since", "2026-01-01")) == 1
    assert loop.json("decisions", "--since", "2100-01-01T00:00:00Z") == []
    assert "FORGOTTEN" in loop.ok("decisions")
    assert "truthloop: a person's corrections were deleted (FORGOTTEN)" in loop.ok("decisions", "none")


def test_control_c_is_no_traceback(loop: Loop, monkeypatch: Any) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bucket, "list", interrupt)
    code, _, err = loop("quarantine")
    assert (code, "the same command goes on" in err) == (130, True)


@pytest.mark.parametrize("arguments", [("soon",), ("--since", "yesterday"), ("--limit", "0")])
def test_a_command_line_that_cannot_be_read_says_what_it_wants(
    loop: Loop, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        loop("decisions", *arguments)
    assert ended.value.code == 2
