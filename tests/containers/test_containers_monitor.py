"""The monitor job as a process: capture and labels in, Model Monitor's files and CloudWatch metrics out."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dataset.captures import CaptureCounts, answers, files, questions
from dataset.records import instant, read_accepted_labels, read_merged_labels
from monitoring.estimator import Estimate
from monitoring.monitor import WindowCounts, predictions, publish
from tests.containers.conftest import Job, accepted_line, capture_line, lines
from truthloop.versions.labels import Origin, Statement
from truthloop.versions.standing import Gathered, Terms, settle

WINDOW = {
    "ENDPOINT_NAME": "digits",
    "WINDOW_START": "2026-11-22T09:00:00Z",
    "WINDOW_END": "2026-11-22T10:00:00Z",
    "ACCURACY_THRESHOLD": "0.8",
    "MINIMUM_LABELS": "10",
}


@pytest.fixture(scope="module")
def cloud() -> Iterator[dict[str, str]]:
    """A CloudWatch that answers over HTTP, and the environment that leads to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    server.stop()


def metrics(cloud: dict[str, str]) -> dict[str, float]:
    """What was published for the endpoint in the last minutes."""
    client = boto3.client(
        "cloudwatch",
        region_name="us-east-1",
        endpoint_url=cloud["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    now, found = datetime.now(UTC), {}
    for name in ("Accuracy", "Labels", "InsufficientEvidence"):
        points = client.get_metric_statistics(
            Namespace="Truthloop",
            MetricName=name,
            Dimensions=[{"Name": "EndpointName", "Value": "digits"}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=5),
            Period=3600,
            Statistics=["Sum"],
        )["Datapoints"]
        if points:
            found[name] = points[0]["Sum"]
    return found


@pytest.fixture(autouse=True)
def _no_metrics_from_before(cloud: dict[str, str]) -> None:
    import urllib.request

    reset = urllib.request.Request(f"{cloud['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()


def arrange(job: Job, right: int, wrong: int, unlabelled: int, source: str = "correction") -> None:
    """Captured answers, of which some are confirmed, some corrected and some never looked at."""
    captures, labels = [], []
    for n in range(right + wrong + unlabelled):
        captures.append(capture_line(f"i{n}", b"image", "1", "2026-11-22T09:30:00Z"))
        if n < right + wrong:
            labels.append(accepted_line(f"i{n}", "1" if n < right else "7", source=source))
    job.write_input("capture/capture/digits/AllTraffic/2026/11/22/09/a.jsonl", lines(captures))
    job.write_input("ground-truth/ground-truth/accepted/2026/11/22/10/a.jsonl", lines(labels))


def monitor(job: Job, cloud: dict[str, str], **changes: str) -> Any:
    job.run("training", "monitor", **{**WINDOW, **cloud, **changes})  # type: ignore[arg-type]
    return job.output("monitoring/statistics.json")


def written(job: Job) -> list[str]:
    return sorted(os.listdir(job.outputs / "monitoring"))


def test_corrections_below_the_threshold_are_a_violation(job: Job, cloud: dict[str, str]) -> None:
    arrange(job, right=2, wrong=30, unlabelled=68)
    found = monitor(job, cloud)
    about = found["truthloop"]
    assert (about["estimator"], about["accuracy"], about["labels"]) == ("corrections_upper_bound", 0.7, 32)
    assert found["dataset"]["item_count"] == 100
    assert found["multiclass_classification_metrics"]["accuracy"]["value"] == pytest.approx(0.7)
    assert found["multiclass_classification_metrics"]["confusion_matrix"]["7"] == {"1": 30, "7": 0}
    assert job.output("monitoring/constraints.json") == {
        "version": 0.0,
        "multiclass_classification_constraints": {
            "accuracy": {"threshold": 0.8, "comparison_operator": "LessThanThreshold"}
        },
    }
    assert job.output("monitoring/constraint_violations.json") == {
        "violations": [
            {
                "constraint_check_type": "LessThanThreshold",
                "description": "Metric accuracy with 0.7000 was LessThanThreshold 0.8",
                "metric_name": "accuracy",
            }
        ]
    }
    assert metrics(cloud) == {"Accuracy": 0.7, "Labels": 32.0, "InsufficientEvidence": 0.0}


def test_an_audit_sample_counts_alone_and_is_judged_by_its_interval(job: Job, cloud: dict[str, str]) -> None:
    arrange(job, right=15, wrong=5, unlabelled=80, source="audit")
    found = monitor(job, cloud)
    about = found["truthloop"]
    assert (about["estimator"], about["accuracy"], about["labels"]) == ("audit_sample", 0.75, 20)
    assert about["accuracyInterval"] == pytest.approx([0.5313, 0.8881], abs=1e-4)
    assert found["dataset"]["item_count"] == 20
    assert written(job) == ["constraints.json", "statistics.json"]  # 20 labels leave room for 0.8
    assert metrics(cloud)["Accuracy"] == 0.75


def test_too_few_labels_are_insufficient_evidence(job: Job, cloud: dict[str, str]) -> None:
    arrange(job, right=0, wrong=9, unlabelled=0)
    found = monitor(job, cloud)
    assert found["truthloop"]["estimator"] == "insufficient_evidence"
    assert found["truthloop"]["accuracy"] is None
    assert found["multiclass_classification_metrics"] == {}
    assert written(job) == ["constraints.json", "statistics.json"]
    assert metrics(cloud) == {"Labels": 9.0, "InsufficientEvidence": 1.0}


def test_no_capture_and_no_labels_are_insufficient_evidence_too(job: Job, cloud: dict[str, str]) -> None:
    assert monitor(job, cloud)["truthloop"]["estimator"] == "insufficient_evidence"
    assert metrics(cloud) == {"Labels": 0.0, "InsufficientEvidence": 1.0}


def test_only_the_window_counts_and_a_bad_record_is_left_out(job: Job, cloud: dict[str, str]) -> None:
    arrange(job, right=10, wrong=0, unlabelled=0)
    no_label = capture_line("odd", b"image", "1", "2026-11-22T09:30:00Z")
    no_label["captureData"]["endpointOutput"]["data"] = "not found"
    extra = [
        capture_line("before", b"image", "1", "2026-11-22T08:59:59Z"),
        capture_line("start", b"image", "1", "2026-11-22T09:00:00Z"),
        capture_line("end", b"image", "1", "2026-11-22T10:00:00Z"),
        no_label,
    ]
    job.write_input("capture/b.jsonl", lines(extra) + '{"captureData":\n')
    about = monitor(job, cloud)["truthloop"]
    assert about["observations"] == {
        "captured": 11,
        "labelled": 10,
        "labelled_right": 10,
        "audited": 0,
        "audited_right": 0,
    }
    assert (about["recordsOutsideWindow"], about["recordsWithoutPrediction"]) == (2, 1)
    assert about["malformedCaptureRecords"] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_newest_answer_of_an_id_is_the_one_that_a_label_is_about(
    job: Job, order: tuple[int, ...]
) -> None:
    # Given one id for three requests, of which the last one is out of the window
    times = ("09:10", "09:20", "10:00")
    captures = [
        capture_line("i", b"x", str(n), f"2026-11-22T{times[n]}:00Z")
        for n in order  # as the endpoint answered, or as S3 lists it
    ]
    job.write_input("capture/a.jsonl", lines(captures))
    job.write_input("ground-truth/a.jsonl", lines([accepted_line("i", "1")]))
    window = instant(WINDOW["WINDOW_START"]), instant(WINDOW["WINDOW_END"])
    accepted = read_accepted_labels(job.inputs / "ground-truth")
    # When
    found = predictions(job.inputs / "capture", accepted, window, CaptureCounts(), WindowCounts())
    # Then
    assert [(row.predicted, row.right) for row in found] == [("1", True)]


def test_metrics_can_be_watched_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(
        "botocore.client.BaseClient._make_api_call", lambda _, name, given: sent.append({name: given})
    )
    publish("Truthloop", "digits", Estimate("audit_sample", 0.9, (0.8, 0.95), 70))
    (given,) = sent
    data = given["PutMetricData"]["MetricData"]
    assert {each["MetricName"]: each["Value"] for each in data} == {
        "Labels": 70,
        "InsufficientEvidence": 0.0,
        "Accuracy": 0.9,
    }
    # An alarm of less than a minute, which a team may choose, looks at no other metrics.
    assert [each["StorageResolution"] for each in data] == [1, 1, 1]


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00+14:00",
        "0001-01-01 00:00:00+14:00",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_a_captured_time_beyond_the_calendar_is_malformed(job: Job, time: str) -> None:
    good = capture_line("good", b"image", "1", "2026-11-22T09:30:00Z")
    job.write_input("capture/a.jsonl", lines([capture_line("bad", b"image", "1", time), good]))
    counts = CaptureCounts()
    found = [answer.inference_id for answer in answers(job.inputs / "capture", counts)]
    assert (found, counts) == (["good"], CaptureCounts(lines=2, malformed=1))
    # and as a request it counts the same
    counts = CaptureCounts()
    frames = list(questions(files(job.inputs / "capture"), counts))
    assert ([frame.height for frame in frames], counts.malformed) == ([1], 1)


def test_the_newest_label_of_an_id_counts_in_any_order_of_files(job: Job) -> None:
    older, newer = (
        accepted_line("i", "1", "2026-11-22T10:00:00Z"),
        accepted_line("i", "7", "2026-11-22T10:00:01Z"),
    )
    job.write_input("ground-truth/a.jsonl", lines([newer]))
    job.write_input("ground-truth/b.jsonl", lines([older, newer]))
    found = read_accepted_labels(job.inputs / "ground-truth").labels
    assert {key: label.label for key, label in found.items()} == {"i": "7"}


def test_labels_are_settled_as_the_snapshot_settles_them(job: Job) -> None:
    rng = random.Random(0)
    said = [
        Statement(
            inference_id=f"i{rng.randrange(40)}",
            label=rng.choice("112"),
            event_time=f"2026-11-22T10:00:0{rng.randrange(3)}Z",
            author=rng.choice(["ann", "bob", None]),
            source=rng.choice(["correction", "correction", "audit", "decision"]),
            sequencer=f"{rng.randrange(300):016X}",
            origin=Origin("ground-truth/inbox/a.jsonl", "v", line, 0, "2026-11-22T10:00:00Z"),
        )
        for line in range(150)
    ]
    image = Statement("image:k", "1", "2026-11-22T10:00:00Z", None, "audit", "0", said[0].origin, "k")
    for n in range(3):
        accepted = b"".join(each.to_accepted_line() for each in [*said[n::3], image])
        job.write_input(f"ground-truth/{n}.jsonl", accepted)
    gathered = Gathered({})
    gathered.add(said)
    standing = settle(gathered, lambda _: True, (), Terms(""))
    found = read_accepted_labels(job.inputs / "ground-truth")
    assert {key: label.label for key, label in found.labels.items()} == {
        key: statement.label for key, statement in standing.labels.items()
    }
    assert found.disputed == set(standing.conflicts)
    assert found.disputed
    lines_ = b"".join(statement.to_label_line() for statement in standing.labels.values())
    job.write_input("dataset/ground-truth.jsonl", lines_)
    assert read_merged_labels(job.inputs / "dataset/ground-truth.jsonl") == found.labels


def test_what_authors_disagree_about_is_no_audit(job: Job, cloud: dict[str, str]) -> None:
    # Given: ten audited answers, all right; about two of them somebody else says otherwise, one is decided
    captures = [capture_line(f"i{n}", b"x", "1", "2026-11-22T09:30:00Z") for n in range(12)]
    job.write_input("capture/a.jsonl", lines(captures))
    audits = [accepted_line(f"i{n}", "1", source="audit") for n in range(12)]
    otherwise = [accepted_line(f"i{n}", "2", author="bob") for n in range(2)]
    decision = accepted_line("i1", "2", source="decision", author="cem")
    job.write_input("ground-truth/a.jsonl", lines([*audits, *otherwise, decision]))
    # When
    job.run("training", "monitor", **{**WINDOW, **cloud})
    # Then
    said = job.output("monitoring/statistics.json")["truthloop"]
    assert said["disputedLabels"] == 1
    assert said["observations"] == {
        "captured": 12,
        "labelled": 11,
        "labelled_right": 10,
        "audited": 10,
        "audited_right": 10,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WINDOW_START": "yesterday"}, "WINDOW_START is 'yesterday': it must be an ISO 8601 time"),
        ({"WINDOW_END": "2026-11-22T09:00:00Z"}, "the window is empty"),
        ({"ENDPOINT_NAME": ""}, "ENDPOINT_NAME is missing or empty"),
        ({"MINIMUM_LABELS": "0"}, "MINIMUM_LABELS is 0"),
    ],
)
def test_bad_settings_fail_with_the_reason(job: Job, changes: dict[str, str], message: str) -> None:
    job.run("training", "monitor", code=2, **{**WINDOW, **changes})
    assert message in job.failure


def test_a_damaged_accepted_file_fails_with_the_reason(job: Job) -> None:
    job.write_input("ground-truth/a.jsonl", json.dumps({"groundTruthData": {}}) + "\n")
    job.run("training", "monitor", code=2, **WINDOW)
    assert job.failure.startswith("RecordError: ")


def test_metrics_that_cannot_be_published_fail_the_job(job: Job) -> None:
    nowhere = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
    }
    job.run("training", "monitor", code=1, **{**WINDOW, **nowhere})
    assert job.failure.startswith("EndpointConnectionError: ")
