"""What counts as evidence, and the dataset version that it becomes."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from tests.handlers.conftest import BUCKET, batch, record, uploaded
from tests.handlers.runs import finished, keyed, release
from truthloop.errors import DatasetInvalid, ModelPackageInvalid, TransientAwsError
from truthloop.steps.capture_index import Segmenting, find_captures
from truthloop.versions.captures import index_prefix
from truthloop.wiring import wiring

ENDPOINT = "truthloop-endpoint"
WHOLE = [
    "capture.manifest",
    "champion.manifest",
    "dataset.json",
    "examples.manifest",
    "ground-truth.jsonl",
    "statements.jsonl",
]


@pytest.fixture
def base(world: Any) -> Any:
    world.put("base/7/a.png", b"image")
    return world


def snapshot(world: Any, name: str = "one") -> tuple[dict[str, str], dict[str, Any]]:
    """Claim and snapshot; return the labels that the version trains on, and its counts."""
    claim = world.claim(name)
    world.run("snapshot_dataset", keyed(claim))
    return labels(world, claim["generation"]), dataset(world, claim["generation"])["groundTruth"]


def labels(world: Any, generation: str = "g00000001") -> dict[str, str]:
    lines = world.get(f"datasets/{generation}/ground-truth.jsonl").decode().splitlines()
    return {line["inferenceId"]: line["label"] for line in map(json.loads, lines)}


def dataset(world: Any, generation: str = "g00000001") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.get(f"datasets/{generation}/dataset.json"))
    return found


def manifest(world: Any, name: str, generation: str = "g00000001") -> list[str]:
    first, *keys, last = json.loads(world.get(f"datasets/{generation}/{name}.manifest"))
    assert first == {"prefix": f"s3://{BUCKET}/"}
    assert last == f"datasets/{generation}/dataset.json"
    return keys


def files(world: Any, generation: str = "g00000001") -> dict[str, bytes]:
    prefix = f"datasets/{generation}/"
    return {key.removeprefix(prefix): world.get(key) for key in world.keys(prefix)}


def newest(world: Any) -> str:
    """Return the generation whose version was trained on last."""
    generation: str = world.record()["lastTrained"]["generation"]
    return generation


def evidence(world: Any, claim: Any) -> Any:
    return world.run("preflight_run", keyed(claim))["evidence"]


def upload(world: Any, name: str, *records: Any, sequencer: str = "01") -> Any:
    key = f"ground-truth/inbox/{name}.jsonl"
    version = world.put(key, "".join(json.dumps(each) + "\n" for each in records))
    return world.run("ingest_ground_truth", batch(uploaded(key, version, sequencer)))


def forget(world: Any, author: str, before: str = "2100-01-01T00:00:00Z") -> None:
    digest = hashlib.sha256(author.encode()).hexdigest()
    tombstone = {"version": 1, "author": digest, "before": before, "by": "me", "reason": "r"}
    world.put(f"ground-truth/forgotten/{digest}.json", tombstone)


# -- the version -------------------------------------------------------------------------------------------


def test_a_snapshot_holds_the_newest_label_per_id_and_is_the_same_again(base: Any) -> None:
    # Given
    base.corrections({"i1": "7", "i2": "2"}, key="a", sequencer="02", capture=False)
    base.corrections({"i1": "1"}, key="b", sequencer="03", capture=False)
    captured = [base.captures("i1", "other", key="x"), base.captures("i2", key="y")]
    base.captures("other", "another", key="z")
    base.captures("i1", endpoint="truthloop-endpoint-2")
    claim = base.claim("one")
    # When
    first = base.run("snapshot_dataset", keyed(claim))
    before = files(base)
    base.corrections({"i3": "3"}, key="late", sequencer="04")
    again = base.run("snapshot_dataset", keyed(claim))
    # Then
    assert again == first
    assert files(base) == before
    assert sorted(before) == WHOLE
    found = dataset(base)
    assert found["datasetVersion"] == first["datasetVersion"]
    nothing = dict.fromkeys(("waiting", "expired", "conflicts", "overShare", "forgotten"), 0)
    counts = {"labels": 2, "new": 2, "perLabel": {"1": 1, "2": 1}, "statements": 2, **nothing}
    assert found["groundTruth"] == counts
    assert found["champion"] is None
    assert labels(base) == {"i1": "1", "i2": "2"}
    assert manifest(base, "capture") == captured  # and none that holds no label's prediction
    assert found["captures"] == 2
    assert manifest(base, "champion") == manifest(base, "examples") == []


def test_preflight_compares_the_version_that_the_snapshot_then_has(base: Any) -> None:
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    known = evidence(base, claim)
    snapshot_ = base.run("snapshot_dataset", keyed(claim))
    assert known["datasetVersion"] == snapshot_["datasetVersion"]


def test_a_later_snapshot_reads_only_what_is_new(base: Any) -> None:
    # Given
    base.corrections({"a": "1", "b": "2"}, key="early", sequencer="01")
    finished(base, "one")
    (early,) = base.keys("ground-truth/accepted/")
    base.corrections({"b": "3", "c": "4"}, key="late", sequencer="02")
    # When
    seen: list[str] = []
    base.hook("before-call.s3.GetObject", lambda params, **_: seen.append(params["url_path"]))
    found, counts = snapshot(base, "two")
    # Then
    read = {path for path in seen if "ground-truth/accepted/" in path}
    assert len(read) == 1
    assert not any(early in path for path in read)
    assert found == {"a": "1", "b": "3", "c": "4"}
    assert (counts["labels"], counts["new"]) == (3, 2)


@pytest.mark.parametrize("writes", range(6))
def test_a_snapshot_that_crashed_after_any_write_is_finished(base: Any, writes: int) -> None:
    # Given
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    left = [writes]

    def crash(**_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError

    base.hook("before-call.s3.PutObject", crash)
    with pytest.raises(MemoryError):
        base.run("snapshot_dataset", keyed(claim))
    base.unhook()
    before = files(base)
    assert len(before) == writes
    # When: meanwhile more is uploaded and captured
    base.corrections({"i2": "2", "i1": "3"}, key="late", sequencer="09")
    answer = base.run("snapshot_dataset", keyed(claim))
    # Then: what was written first has decided
    after = files(base)
    assert sorted(after) == WHOLE
    assert {name: after[name] for name in before} == before
    assert labels(base) == ({"i1": "7"} if writes else {"i1": "3", "i2": "2"})
    assert answer["labels"] == len(labels(base))


def test_of_two_attempts_at_once_the_first_write_decides(base: Any) -> None:
    # Given: while one attempt is about to write, another one, which knows more, runs from end to end
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    others: list[Any] = []

    def overtake(**_: Any) -> None:
        if not others:
            others.append(None)
            base.corrections({"i2": "2"}, key="late", sequencer="09")
            others[0] = base.run("snapshot_dataset", keyed(claim))

    base.hook("before-call.s3.PutObject", overtake)
    # When
    answer = base.run("snapshot_dataset", keyed(claim))
    # Then
    assert others == [answer]
    assert labels(base) == {"i1": "7", "i2": "2"}
    assert len(dataset(base)["acceptedKeys"]) == 2


def test_a_throttled_read_among_many_is_a_retry(base: Any) -> None:
    for n in range(20):
        base.corrections({f"i{n}": "7"}, key=f"f{n}")
    claim = base.claim("one")
    base.fail("s3.GetObject", "SlowDown", status=503, times=100)
    with pytest.raises(TransientAwsError):
        base.run("snapshot_dataset", keyed(claim))
    base.unhook()
    assert base.run("snapshot_dataset", keyed(claim))["labels"] == 20


def test_the_champion_goes_into_the_snapshot(base: Any) -> None:
    arn = base.register("g00000000", "old", "Approved")
    snapshot(base)
    assert dataset(base)["champion"]["modelPackageArn"] == arn
    assert manifest(base, "champion") == ["runs/g00000000/models/old/output/model.tar.gz"]


def test_a_champion_outside_the_bucket_is_refused_with_what_to_do(base: Any) -> None:
    base.sagemaker.create_model_package(
        ModelPackageGroupName="truthloop-models",
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [{"Image": "i", "ModelDataUrl": "s3://elsewhere/model.tar.gz"}],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )
    with pytest.raises(ModelPackageInvalid, match="copy it there"):
        snapshot(base)
    assert base.keys("datasets/") == []


def test_somebody_elses_file_among_the_accepted_is_found(base: Any) -> None:
    base.put("ground-truth/accepted/2026/11/22/10/foreign.jsonl", b"not a label\n")
    with pytest.raises(DatasetInvalid, match="line 1 of"):
        snapshot(base)


def test_a_version_that_was_changed_after_it_was_decided_is_found(base: Any) -> None:
    base.corrections({"i1": "7", "i2": "2"})
    claim = base.claim("one")
    base.run("snapshot_dataset", keyed(claim))
    base.s3.delete_object(Bucket=BUCKET, Key="datasets/g00000001/dataset.json")
    whole = files(base)["statements.jsonl"]
    base.put("datasets/g00000001/statements.jsonl", b"\n".join(whole.splitlines()[:-1]) + b"\n")
    with pytest.raises(DatasetInvalid, match="promises 2 labels and holds 1"):
        base.run("snapshot_dataset", keyed(claim))
    base.put("datasets/g00000001/statements.jsonl", b"")
    with pytest.raises(DatasetInvalid, match="first line of"):
        base.run("snapshot_dataset", keyed(claim))


# -- the sides of the pictures -----------------------------------------------------------------------------


def prepares(world: Any, content: bytes, generation: str = "g00000001") -> str:
    """Leave behind what Prepare does."""
    key = f"runs/{generation}/prepared/report/sides.parquet"
    world.put(key, content)
    return key


def test_a_version_holds_what_the_newest_prepare_remembers(base: Any) -> None:
    # Given a first run, one whose Prepare fails, and a snapshot whose pipeline is never started
    base.corrections({"i1": "7"})
    finished(base, "one")
    assert sorted(files(base)) == WHOLE  # there is nothing to remember yet
    prepares(base, b"of the first")
    base.put("runs/g00000001/prepared/report/sides.parquet.bak", b"somebody's copy")
    finished(base, "two", "FAILED")
    claim = base.claim("three")
    base.run("snapshot_dataset", keyed(claim))
    release(base, claim, outcome="FAILED", error={"Error": "E", "Cause": "c"})
    # When
    prepares(base, b"of a later run, which the record does not know", "g00000003")
    finished(base, "four")
    # Then each has what the newest run before it has left, or was given
    for generation in ("g00000002", "g00000003", "g00000004"):
        found = files(base, generation)
        assert sorted(found) == sorted([*WHOLE, "sides.parquet"])
        assert found["sides.parquet"] == b"of the first"
    prepares(base, b"of the fourth", "g00000004")
    snapshot(base, "five")
    assert files(base, "g00000005")["sides.parquet"] == b"of the fourth"


def test_what_is_remembered_is_no_new_evidence(base: Any) -> None:
    base.corrections({"i1": "7"})
    finished(base, "one")
    prepares(base, b"of the first")
    claim = base.claim("two")
    bars = {rule["rule"]: rule["passed"] for rule in base.run("preflight_run", keyed(claim))["rules"]}
    base.run("snapshot_dataset", keyed(claim))
    assert not bars["SAME_EVIDENCE"]
    assert "sides.parquet" in files(base, "g00000002")
    assert dataset(base, "g00000002")["datasetVersion"] == dataset(base)["datasetVersion"]
    assert "sidesKey" not in dataset(base, "g00000002")


@pytest.mark.parametrize("writes", range(4))
def test_which_memory_a_version_has_is_decided_once(base: Any, writes: int) -> None:
    # Given
    base.corrections({"i1": "7"})
    finished(base, "one")
    prepares(base, b"of the first")
    claim = base.claim("two")
    left = [writes]

    def crash(**_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError

    base.hook("before-call.s3.PutObject", crash)
    with pytest.raises(MemoryError):
        base.run("snapshot_dataset", keyed(claim))
    base.unhook()
    before = files(base, "g00000002")
    assert len(before) == writes
    # When: meanwhile there is another one, which would not have been taken
    base.put("datasets/g00000001/sides.parquet", b"of nobody")
    base.run("snapshot_dataset", keyed(claim))
    # Then
    after = files(base, "g00000002")
    assert sorted(after) == sorted([*WHOLE, "sides.parquet"])
    assert {name: after[name] for name in before} == before
    assert after["sides.parquet"] == b"of the first"


def test_a_memory_that_is_gone_before_it_was_copied_is_said(base: Any) -> None:
    # Given
    base.corrections({"i1": "7"})
    finished(base, "one")
    key = prepares(base, b"of the first")
    claim = base.claim("two")
    base.run("snapshot_dataset", keyed(claim))
    for lost in (*(f"datasets/g00000002/{name}" for name in ("dataset.json", "sides.parquet")), key):
        base.s3.delete_object(Bucket=BUCKET, Key=lost)
    # When
    with pytest.raises(
        DatasetInvalid, match=r"restore it, or delete .*g00000002/statements\.jsonl"
    ) as caught:
        base.run("snapshot_dataset", keyed(claim))
    # Then what it says helps
    assert key in str(caught.value)
    base.s3.delete_object(Bucket=BUCKET, Key="datasets/g00000002/statements.jsonl")
    base.run("snapshot_dataset", keyed(claim))
    assert sorted(files(base, "g00000002")) == WHOLE


def test_a_version_that_was_decided_before_sides_were_remembered_is_finished(base: Any) -> None:
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    base.run("snapshot_dataset", keyed(claim))
    before = files(base)
    base.s3.delete_object(Bucket=BUCKET, Key="datasets/g00000001/dataset.json")
    first, *others = before["statements.jsonl"].splitlines(keepends=True)
    line = json.loads(first)
    del line["sidesKey"]
    base.put("datasets/g00000001/statements.jsonl", b"".join([json.dumps(line).encode() + b"\n", *others]))
    base.run("snapshot_dataset", keyed(claim))
    assert files(base)["dataset.json"] == before["dataset.json"]


# -- counted once ------------------------------------------------------------------------------------------


def test_however_it_comes_a_correction_counts_once(base: Any) -> None:
    # Given: the same object twice, two versions out of order, the same corrections in two files
    key = "ground-truth/inbox/a.jsonl"
    older = uploaded(key, base.put(key, record("i1", "1")), sequencer="0A")
    newer = uploaded(key, base.put(key, record("i1", "2")), sequencer="FF")
    for event in (newer, older, newer, older):
        base.run("ingest_ground_truth", batch(event))
    for name in ("b", "c"):
        upload(base, name, record("i2", "3", eventTime="2026-11-22T10:00:00Z", author="ann"))
    base.captures("i1", "i2")
    # When
    found, counts = snapshot(base)
    # Then
    assert found == {"i1": "2", "i2": "3"}
    assert (counts["labels"], counts["new"]) == (2, 2)


def test_a_correction_that_says_the_same_again_is_nothing_new(base: Any) -> None:
    base.corrections({"i1": "1"})
    finished(base, "one")
    base.corrections({"i1": "1"}, key="again", sequencer="05")
    claim = base.claim("two")
    assert evidence(base, claim)["newLabels"] == 0
    base.run("snapshot_dataset", keyed(claim))
    assert dataset(base, "g00000002")["groundTruth"]["new"] == 0
    assert dataset(base, "g00000002")["datasetVersion"] == dataset(base)["datasetVersion"]


# -- captures ----------------------------------------------------------------------------------------------


def test_a_label_waits_for_its_capture(base: Any) -> None:
    # Given: a version has only what is captured; the other label goes on waiting
    base.corrections({"i1": "1", "i2": "2"}, capture=False)
    base.captures("i2")
    finished(base, "one")
    assert labels(base) == {"i2": "2"}
    claim = base.claim("two")
    assert evidence(base, claim)["newLabels"] == 0
    # When
    base.captures("i1")
    # Then
    assert evidence(base, claim)["newLabels"] == 1
    base.run("snapshot_dataset", keyed(claim))
    assert labels(base, "g00000002") == {"i1": "1", "i2": "2"}


def test_what_is_not_captured_within_the_horizon_is_quarantined_once_and_may_be_put_back(base: Any) -> None:
    # Given
    upload(base, "a", record("i1", "1", author="ann"), record("i2", "2"), record("i3", "3"))
    base.captures("i2")
    finished(base, "one")
    counts = dataset(base)["groundTruth"]
    assert (labels(base), counts["waiting"], counts["expired"]) == ({"i2": "2"}, 2, 0)
    # When
    base.later(hours=25)
    for _ in range(2):
        evidence(base, base.claim("two"))
    # Then: one object beside the others, as requeue reads it
    (key,) = base.keys("ground-truth/quarantine/no-capture/")
    accepted = base.keys("ground-truth/accepted/")[0].rsplit("/", 1)[1].removesuffix(".jsonl")
    assert key.startswith(f"ground-truth/quarantine/no-capture/{accepted}.")
    entries = [json.loads(line) for line in base.get(key).splitlines()]
    assert [entry["reason"] for entry in entries] == ["NO_CAPTURE", "NO_CAPTURE"]
    assert [entry["source"]["line"] for entry in entries] == [1, 3]
    assert entries[0]["source"]["bucket"] == BUCKET
    assert "no prediction 'i1' was captured within 24 h" in entries[0]["detail"]
    # When: a person takes one of them out, to put it back
    base.put(key, b"".join(base.get(key).splitlines(keepends=True)[1:]))
    evidence(base, base.claim("two"))
    # Then: it is not quarantined again
    assert base.keys("ground-truth/quarantine/no-capture/") == [key]
    # When: the capture comes after all
    base.captures("i1", "i3")
    base.end(base.record()["holder"])
    finished(base, "three")
    # Then: what is in quarantine does not count as well
    assert labels(base, newest(base)) == {"i2": "2"}
    # When: a person puts the records back
    upload(base, "requeued", *(json.loads(entry["record"]) for entry in entries), sequencer="77")
    finished(base, "four")
    assert labels(base, newest(base)) == {"i1": "1", "i2": "2", "i3": "3"}


def test_an_older_word_does_not_hold_when_the_newer_one_has_expired_versions_ago(base: Any) -> None:
    # Given: ann's word has expired and a version was trained without it
    upload(base, "a", record("i1", "7", author="ann", eventTime="2026-01-01T10:00:00Z"), record("i2", "2"))
    base.captures("i2")
    base.later(hours=25)
    finished(base, "one")
    counts = dataset(base)["groundTruth"]
    assert (labels(base), counts["expired"], counts["statements"]) == ({"i2": "2"}, 1, 1)
    # When: an older word of hers is uploaded, and the capture comes
    upload(base, "b", record("i1", "3", author="ann", eventTime="2026-01-01T09:00:00Z"))
    base.captures("i1", "i2")
    finished(base, "two")
    # Then: she has taken it back, and what expired is not told twice
    counts = dataset(base, newest(base))["groundTruth"]
    assert (labels(base, newest(base)), counts["expired"]) == ({"i2": "2"}, 0)
    # When: the newer word is sent back, in another second than it first came: S3 tells no more of its times
    time.sleep(1)
    (key,) = base.keys("ground-truth/quarantine/no-capture/")
    upload(base, "requeued", json.loads(json.loads(base.get(key))["record"]), sequencer="00")
    finished(base, "three")
    # Then
    assert labels(base, newest(base)) == {"i1": "7", "i2": "2"}


def test_what_expires_later_of_the_same_upload_is_quarantined_beside_it(base: Any) -> None:
    upload(base, "a", record("i1", "1"), record("i2", "2"))
    capture = base.captures("i2")
    base.later(hours=25)
    claim = base.claim("one")
    assert evidence(base, claim)["expired"] == 1
    base.s3.delete_object(Bucket=BUCKET, Key=capture)
    assert evidence(base, claim)["expired"] == 2
    lines = [base.get(key) for key in base.keys("ground-truth/quarantine/no-capture/")]
    assert sorted(json.loads(line)["source"]["line"] for line in lines) == [1, 2]


def test_the_horizon_is_a_parameter(base: Any) -> None:
    base.configure("POLICY", captureHorizonHours=1)
    base.corrections({"i1": "1"}, capture=False)
    base.later(hours=2)
    _, counts = snapshot(base)
    assert counts["expired"] == 1


def test_a_crash_between_quarantine_and_the_note_of_it_repeats_the_same_writes(base: Any) -> None:
    base.corrections({"i1": "1", "i2": "2"}, capture=False)
    base.later(hours=25)
    claim = base.claim("one")
    evidence(base, claim)
    (key,) = base.keys("ground-truth/expired/")
    note, entries = base.get(key), base.keys("ground-truth/quarantine/no-capture/")
    base.s3.delete_object(Bucket=BUCKET, Key=key)
    assert evidence(base, claim)["expired"] == 2
    assert base.get(key) == note == b'{"lines": [1, 2]}'
    assert base.keys("ground-truth/quarantine/no-capture/") == entries


def test_a_note_that_cannot_be_read_is_found(base: Any) -> None:
    base.corrections({"i1": "1"}, capture=False)
    accepted = base.keys("ground-truth/accepted/")[0].rsplit("/", 1)[1].removesuffix(".jsonl")
    base.put(f"ground-truth/expired/{accepted}.0.json", b"{}\n")
    with pytest.raises(DatasetInvalid, match="does not say which records expired"):
        snapshot(base)


# -- the capture index -------------------------------------------------------------------------------------

EAGER = Segmenting(from_objects=1, segment_bytes=1)


def test_each_capture_object_is_read_once_and_then_known_by_the_index(base: Any) -> None:
    objects = wiring().objects
    one, two = base.captures("a", "b", key="1"), base.captures("b", "c", key="2")
    seen: list[str] = []
    base.hook("before-call.s3.GetObject", lambda params, **_: seen.append(params["url_path"]))
    first = find_captures(objects, ENDPOINT, ["a", "b", "x"], EAGER)
    assert first.captures_of(["a", "b", "x"]) == (one, two)
    assert len([path for path in seen if "/capture/" in path]) == 2
    assert len(base.keys(index_prefix(ENDPOINT))) == 2
    seen.clear()
    three = base.captures("x", key="3")
    again = find_captures(objects, ENDPOINT, ["c", "x"], EAGER)
    assert again.captures_of(["c", "x"]) == (two, three)
    assert len([path for path in seen if "/capture/" in path]) == 1
    # An object that was deleted holds nothing, whatever the index says.
    base.s3.delete_object(Bucket=BUCKET, Key=one)
    gone = find_captures(objects, ENDPOINT, ["a", "b"], EAGER)
    assert gone.captures_of(["a", "b"]) == (two,)


def test_indexing_that_was_cut_off_keeps_its_progress(base: Any) -> None:
    for n in range(6):
        base.captures(f"i{n}", key=str(n))
    left = [3]

    def cut_off(**_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError

    base.hook("before-call.s3.PutObject", cut_off)
    with pytest.raises(MemoryError):
        find_captures(wiring().objects, ENDPOINT, ["i0"], EAGER)
    base.unhook()
    seen: list[str] = []
    base.hook("before-call.s3.GetObject", lambda params, **_: seen.append(params["url_path"]))
    found = find_captures(wiring().objects, ENDPOINT, [f"i{n}" for n in range(6)], EAGER)
    assert len(found.captures_of([f"i{n}" for n in range(6)])) == 6
    assert len([path for path in seen if "/capture/" in path]) == 3


def test_a_few_captures_are_read_again_rather_than_indexed(base: Any) -> None:
    base.captures("a")
    assert "a" in find_captures(wiring().objects, ENDPOINT, ["a"])
    assert base.keys(index_prefix(ENDPOINT)) == []


# -- people ------------------------------------------------------------------------------------------------


def test_authors_who_disagree_are_set_aside_until_somebody_decides(base: Any) -> None:
    base.captures("i1", "i2")
    upload(base, "a", record("i1", "1", author="ann"), record("i2", "1", author="ann"))
    upload(base, "b", record("i1", "2", author="bob"), record("i2", "1", author="bob"))
    finished(base, "one")
    counts = dataset(base)["groundTruth"]
    assert (labels(base), counts["conflicts"], counts["statements"]) == ({"i2": "1"}, 1, 4)
    upload(base, "c", record("i1", "2", author="cem", source="decision"))
    finished(base, "two")
    assert labels(base, newest(base)) == {"i1": "2", "i2": "1"}


def test_a_majority_settles_what_authors_disagree_about_where_a_team_allows_it(base: Any) -> None:
    base.captures("i1")
    for author, label in (("ann", "1"), ("bob", "2"), ("cem", "2")):
        upload(base, author, record("i1", label, author=author))
    base.configure("POLICY", conflictResolution="majority")
    assert snapshot(base)[0] == {"i1": "2"}


def test_no_author_contributes_more_than_their_share(base: Any) -> None:
    base.configure("POLICY", maximumAuthorShare=0.5)
    base.corrections({f"a{n}": "1" for n in range(5)}, key="ann", author="ann")
    base.corrections({"b0": "2", "b1": "2"}, key="bob", author="bob")
    found, counts = snapshot(base)
    assert (counts["labels"], counts["overShare"]) == (4, 3)
    assert set(found) == {"a0", "a1", "b0", "b1"}


def test_a_forgotten_author_is_absent_from_the_next_version_wherever_they_are_found(base: Any) -> None:
    # Given: ann is in the last version, and in what has come since
    base.corrections({"i1": "1", "i2": "2"}, key="ann", author="ann")
    base.corrections({"i3": "3"}, key="bob", author="bob")
    finished(base, "one")
    base.corrections({"i4": "4"}, key="more", author="ann")
    # When
    forget(base, "ann")
    found, counts = snapshot(base, "two")
    # Then
    assert found == {"i3": "3"}
    assert counts["forgotten"] == 3
    assert b"ann" not in files(base, "g00000002")["statements.jsonl"]


def test_forgetting_between_two_attempts_leaves_the_version_as_it_was_decided(base: Any) -> None:
    base.corrections({"i1": "1"}, author="ann")
    claim = base.claim("one")
    base.run("snapshot_dataset", keyed(claim))
    before = files(base)
    for name in ("dataset.json", "ground-truth.jsonl"):
        base.s3.delete_object(Bucket=BUCKET, Key=f"datasets/g00000001/{name}")
    forget(base, "ann")
    (accepted,) = base.keys("ground-truth/accepted/")
    base.put(accepted, b"")
    base.run("snapshot_dataset", keyed(claim))
    assert files(base) == before


def test_a_tombstone_that_cannot_be_read_brings_nobody_back(base: Any) -> None:
    base.put("ground-truth/forgotten/x.json", b"{}")
    with pytest.raises(DatasetInvalid, match="of no author"):
        snapshot(base)


# -- labelled examples -------------------------------------------------------------------------------------


def test_a_labelled_example_waits_for_its_image_and_is_listed_with_it(base: Any) -> None:
    images = ["ground-truth/images/a.png", "ground-truth/images/b.png"]
    base.put(images[0], b"image")
    upload(base, "a", *({"source-ref": key, "label": "7"} for key in images))
    finished(base, "one")
    assert labels(base) == {f"image:{images[0]}": "7"}
    assert manifest(base, "examples") == [images[0]]
    (line,) = files(base)["ground-truth.jsonl"].splitlines()
    assert json.loads(line)["imageETag"] == hashlib.md5(b"image", usedforsecurity=False).hexdigest()
    counts = dataset(base)["groundTruth"]
    assert (counts["labels"], counts["waiting"]) == (1, 1)
    # When
    base.put(images[1], b"image")
    finished(base, "two")
    # Then
    assert manifest(base, "examples", newest(base)) == images
    assert dataset(base, newest(base))["groundTruth"]["new"] == 1


def test_another_image_under_the_same_key_is_another_version(base: Any) -> None:
    base.put("ground-truth/images/a.png", b"image")
    upload(base, "a", {"source-ref": "ground-truth/images/a.png", "label": "7"})
    claim = base.claim("one")
    before = evidence(base, claim)["datasetVersion"]
    base.put("ground-truth/images/a.png", b"another image")
    assert evidence(base, claim)["datasetVersion"] != before
