"""Training jobs of several instances: what each is given, what they leave, and how all of them end."""

from __future__ import annotations

import errno
import json
import re
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from local.sagemaker.hosts import MeetingPoint
from tests.local.sagemaker_driver import RESOURCES, Driver, channel, wait_until

GROUP = "/aws/sagemaker/TrainingJobs"
TWO = {**RESOURCES, "InstanceCount": 2}


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


def seen_by(aws: Driver, job: dict[str, Any], number: int) -> dict[str, Any]:
    archive = job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar", "output.tar")
    return dict(aws.tar_member(archive, f"host-{number}/seen.json"))


def lines_of(aws: Driver, name: str, number: int) -> list[str]:
    with suppress(aws.logs.exceptions.ResourceNotFoundException):  # no job has logged anything yet
        return aws.messages(GROUP, f"{name}/algo-{number}-")
    return []


def test_each_host_has_a_root_a_name_and_a_log_and_all_make_one_model(aws: Driver) -> None:
    # Given: three objects that every host is to have, also by a manifest, and shared out
    for name in ("a", "b", "c"):
        aws.put(f"hosts/{name}", name.upper())
    manifest = aws.put("hosts.json", json.dumps([{"prefix": aws.uri("hosts/")}, "c", "b", "a"]))
    sharded = {"S3DataDistributionType": "ShardedByS3Key"}
    request = {
        "ResourceConfig": TWO,
        "CheckpointConfig": {"S3Uri": aws.uri("checkpoints/hosts")},
        "InputDataConfig": [
            channel("every", aws.uri("hosts/"), S3DataDistributionType="FullyReplicated"),
            channel("some", aws.uri("hosts/"), **sharded),
            channel("listed", manifest, "ManifestFile", **sharded),
        ],
        "EnableNetworkIsolation": True,
    }
    # When: it trains, and once more from its checkpoint
    aws.train(**request)
    job = aws.train(**request)
    # Then
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert aws.tar_member(job["ModelArtifacts"]["S3ModelArtifacts"], "weights.json") == {"answer": "a"}
    first, second = (seen_by(aws, job, number) for number in (1, 2))
    hosts = first["resource"]["hosts"]
    assert hosts == second["resource"]["hosts"] == sorted(hosts)
    assert [each["resource"]["current_host"] for each in (first, second)] == hosts
    for name in hosts:  # a name by which this machine finds itself
        assert socket.gethostbyname(name).startswith("127.")
    assert {each["resource"]["network_interface_name"] for each in (first, second)} == {"lo"}
    whole = {f"every/{name}": name.upper() for name in ("a", "b", "c")}
    assert first["data"] == {**whole, "some/a": "A", "some/c": "C", "listed/c": "C", "listed/a": "A"}
    assert second["data"] == {**whole, "some/b": "B", "listed/b": "B"}
    assert first["inputs"]["some"]["S3DistributionType"] == "ShardedByS3Key"
    environments = [first["environment"], second["environment"]]
    assert [each["SM_CURRENT_HOST"] for each in environments] == hosts
    assert len({each["ML_BASE_DIR"] for each in environments}) == 2
    assert len({each["MASTER_PORT"] for each in environments}) == 1
    # And: one log for each, which shows that both had the checkpoint
    for number in (1, 2):
        assert "accuracy=0.5; resumed from 'x'" in lines_of(aws, job["TrainingJobName"], number)
    streams = aws.streams(GROUP, f"{job['TrainingJobName']}/")
    assert [re.sub(r"\d{10}$", "", stream).rpartition("/")[2] for stream in streams] == ["algo-1-", "algo-2-"]


def processes_of(name: str) -> list[int]:
    """Return every process that a training job has started, on whichever host."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # others come and go
            if f"TRAINING_JOB_NAME={name}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def test_one_host_that_fails_ends_the_job_with_its_reason(aws: Driver) -> None:
    hyper = {"fail": "no space is left", "failing_host": "2", "seconds": "600", "spawn": "1"}
    job = aws.train(ResourceConfig=TWO, HyperParameters=hyper)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: no space is left, exit code: 3"
    assert not job.get("ModelArtifacts", {}).get("S3ModelArtifacts")
    wait_until(lambda: not processes_of(job["TrainingJobName"]), what="the end of both hosts")


def test_a_stopped_job_ends_on_all_hosts(aws: Driver) -> None:
    hyper = {"seconds": "600", "spawn": "1", "stubborn": "1"}
    name = aws.train(wait=False, ResourceConfig=TWO, HyperParameters=hyper)["TrainingJobName"]
    wait_until(
        lambda: "step=1" in lines_of(aws, name, 1) and "step=1" in lines_of(aws, name, 2), what="steps"
    )
    assert len(processes_of(name)) == 4
    aws.sagemaker.stop_training_job(TrainingJobName=name)
    job = aws.trained(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert aws.tar_member(job["ModelArtifacts"]["S3ModelArtifacts"], "weights.json")
    wait_until(lambda: not processes_of(name), what="the end of both hosts")


def test_two_hosts_cannot_write_the_same_file(aws: Driver) -> None:
    job = aws.train(ResourceConfig=TWO, HyperParameters={"all_write": "1"})
    assert job["TrainingJobStatus"] == "Failed"
    assert "algo-1 and algo-2 have both written weights.json for model.tar.gz" in job["FailureReason"]


def test_a_meeting_point_is_the_job_s_own() -> None:
    with closing(MeetingPoint()) as mine, closing(MeetingPoint()) as other:
        assert mine.port != other.port
        # Whoever was told the port can listen on it, at once and again, as PyTorch's store does
        for _ in range(2):
            with socket.socket() as store:
                store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                store.bind(("", mine.port))
                store.listen()
                with socket.create_connection(("127.0.0.2", mine.port)):
                    pass
        # and nobody else has it by chance
        with socket.socket() as stranger, pytest.raises(OSError, match=str(errno.EADDRINUSE)):
            stranger.bind(("", mine.port))
