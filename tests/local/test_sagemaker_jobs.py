"""Training and processing jobs of the embedded AWS: the contract, and every way in which they end."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.sagemaker_driver import (
    PROBE,
    REGISTRY,
    RESOURCES,
    ROLE,
    Driver,
    alive,
    channel,
    own_server,
    role,
    unique,
    wait_until,
)
from truthloop.aws.jobs import SageMakerJobs


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


def test_a_training_job_follows_the_contract(aws: Driver) -> None:
    aws.put("sets/one/a.txt", "A")
    aws.put("sets/one/deep/b.txt", "B")
    aws.put("sets/one/c.txt", "C")
    manifest = aws.put("manifest.json", json.dumps([{"prefix": aws.uri("sets/")}, "one/deep/b.txt"]))
    collect = aws.watch("SageMaker Training Job State Change")
    specification = {
        "TrainingImage": PROBE,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "accuracy", "Regex": r"accuracy=([0-9.]+);"}],
    }
    job = aws.train(
        AlgorithmSpecification=specification,
        HyperParameters={"answer": "seven", "epochs": "3"},
        Environment={"COLOUR": "blue"},
        InputDataConfig=[
            channel("train", aws.uri("sets/one")),
            channel("picked", manifest, "ManifestFile"),
            channel("single", aws.uri("sets/one/a.txt")),
        ],
    )

    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Completed", job.get("FailureReason")
    states = [item["Status"] for item in job["SecondaryStatusTransitions"]]
    assert states == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in item for item in job["SecondaryStatusTransitions"])
    artefact = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert artefact == aws.uri(f"output/{job['TrainingJobName']}/output/model.tar.gz")
    assert aws.tar_member(artefact, "weights.json") == {"answer": "seven"}
    assert [(m["MetricName"], m["Value"]) for m in job["FinalMetricDataList"]] == [("accuracy", 0.75)]
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1

    seen = aws.tar_member(artefact.replace("model.tar", "output.tar"), "seen.json")
    assert seen["hyper"] == {"answer": "seven", "epochs": "3"}
    assert seen["arguments"] == ["train"]
    assert seen["resource"]["hosts"] == ["algo-1"]
    assert set(seen["inputs"]) == {"train", "picked", "single"}
    assert seen["data"] == {
        "train/a.txt": "A",
        "train/c.txt": "C",
        "train/deep/b.txt": "B",
        "picked/one/deep/b.txt": "B",
        "single/a.txt": "A",
    }
    environment = seen["environment"]
    assert environment["COLOUR"] == "blue"
    assert environment["GREETING"] == "hello"
    assert environment["OTHER"] == "two words"
    assert environment["TRAINING_JOB_NAME"] == job["TrainingJobName"]
    assert environment["TRAINING_JOB_ARN"] == job["TrainingJobArn"]
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["AWS_ENDPOINT_URL"] == aws.server.endpoint
    assert environment["SM_MODEL_DIR"].startswith(environment["ML_BASE_DIR"])
    assert not {"PYTEST_CURRENT_TEST", "TRUTHLOOP_IMAGES", "MOTO_PORT"} & set(environment)

    lines = aws.messages("/aws/sagemaker/TrainingJobs", job["TrainingJobName"])
    assert "accuracy=0.75;" in lines
    mine = wait_until(
        lambda: [
            event["detail"]
            for event in collect()
            if event["resources"] == [job["TrainingJobArn"]]
            and any(e["detail"]["TrainingJobStatus"] == "Completed" for e in collect())
        ],
        what="the Completed event",
    )
    mine.sort(key=lambda detail: len(detail["SecondaryStatusTransitions"]))  # a queue keeps no order
    assert [detail["SecondaryStatus"] for detail in mine] == states
    assert mine[-1]["TrainingJobStatus"] == "Completed"
    assert isinstance(mine[-1]["CreationTime"], int)
    assert mine[-1]["HyperParameters"] == {"answer": "seven", "epochs": "3"}


def test_a_failing_script_gives_its_failure_file_as_reason(aws: Driver) -> None:
    job = aws.train(HyperParameters={"fail": "the data has no labels"})
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: the data has no labels, exit code: 3"
    assert "ModelArtifacts" not in job or not job["ModelArtifacts"].get("S3ModelArtifacts")


def test_a_failing_script_without_failure_file_gives_its_last_line(aws: Driver) -> None:
    job = aws.train(HyperParameters={"fail": ""})
    assert job["FailureReason"].startswith("AlgorithmError: ")
    assert "it went wrong" in job["FailureReason"]
    assert job["FailureReason"].endswith("exit code: 3")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (f"{REGISTRY}/truthloop-unknown:latest", "image not found"),
        (f"{REGISTRY}/truthloop-broken:latest", "has RUN before FROM"),
        (f"{REGISTRY}/truthloop-empty:latest", "copies 'nothing', which does not exist"),
    ],
)
def test_an_image_that_is_none_fails_the_job(aws: Driver, image: str, reason: str) -> None:
    job = aws.train(AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File"})
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    assert reason in job["FailureReason"]


def test_a_missing_channel_fails_the_job(aws: Driver) -> None:
    job = aws.train(InputDataConfig=[channel("train", aws.uri("not/there"))])
    assert job["TrainingJobStatus"] == "Failed"
    assert f'No S3 objects found under S3 URL "{aws.uri("not/there")}"' in job["FailureReason"]
    assert ROLE in job["FailureReason"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"prefix": "s3://nowhere/"}, "is malformed"),
        ([{"prefix": "s3://nowhere/"}], "names no objects"),
        ([{"prefix": "s3://nowhere/"}, 7], "no strings"),
        ([{"prefix": "s3://nowhere/"}, "a"], "s3://nowhere/a named in the manifest"),
        ([{"prefix": "nowhere"}, "a"], "is not an S3 URI"),
    ],
)
def test_a_manifest_that_is_none_fails_the_job(aws: Driver, entries: Any, message: str) -> None:
    manifest = aws.put(f"{unique('manifest')}.json", json.dumps(entries))
    job = aws.train(InputDataConfig=[channel("train", manifest, "ManifestFile")])
    assert job["TrainingJobStatus"] == "Failed"
    assert message in job["FailureReason"]


def test_a_manifest_cannot_lead_out_of_its_channel(aws: Driver) -> None:
    manifest = aws.put("evil.json", json.dumps([{"prefix": aws.uri("")}, "../../etc/passwd"]))
    job = aws.train(InputDataConfig=[channel("train", manifest, "ManifestFile")])
    assert "leads out of the channel's directory" in job["FailureReason"]


def training(aws: Driver, name: str) -> bool:
    job = aws.sagemaker.describe_training_job(TrainingJobName=name)
    return bool(job["SecondaryStatus"] == "Training")


def test_a_stopped_job_keeps_its_model_and_leaves_no_process(aws: Driver) -> None:
    name = aws.train(wait=False, HyperParameters={"seconds": "60", "spawn": "1", "stubborn": "1"})[
        "TrainingJobName"
    ]
    line = wait_until(
        lambda: next(
            (x for x in _lines_while_running(aws, name) if x.startswith("child ")),
            None,
        ),
        what="the log while the job runs",
    )
    aws.sagemaker.stop_training_job(TrainingJobName=name)
    assert aws.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Stopping"
    job = aws.trained(name)
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    assert aws.tar_member(job["ModelArtifacts"]["S3ModelArtifacts"], "weights.json")
    _, child, _, parent = line.split()
    for pid in (int(child), int(parent)):
        wait_until(partial(_ended, pid), what=f"the end of process {pid}")
    with pytest.raises(ClientError, match="status Stopped"):
        aws.sagemaker.stop_training_job(TrainingJobName=name)


def _ended(pid: int) -> bool:
    return not alive(pid)


def _lines_while_running(aws: Driver, name: str) -> list[str]:
    try:
        return aws.messages("/aws/sagemaker/TrainingJobs", name)
    except ClientError:
        return []


def test_a_job_that_takes_too_long_is_stopped(aws: Driver) -> None:
    job = aws.train(HyperParameters={"seconds": "60"}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"


def test_checkpoints_are_kept_and_restored(aws: Driver) -> None:
    config = {"S3Uri": aws.uri("checkpoints/mine")}
    aws.train(CheckpointConfig=config)
    assert aws.get(aws.uri("checkpoints/mine/step")) == b"x"
    job = aws.train(CheckpointConfig=config)
    assert aws.get(aws.uri("checkpoints/mine/step")) == b"xx"
    lines = aws.messages("/aws/sagemaker/TrainingJobs", job["TrainingJobName"])
    assert "accuracy=0.5; resumed from 'x'" in lines


# -- spot --------------------------------------------------------------------------------------------------


def spot(**changes: Any) -> dict[str, Any]:
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        **changes,
    }


def test_an_interrupted_spot_job_goes_on_from_its_checkpoint_on_another_instance() -> None:
    # Given: a spot job loses an instance twice, as soon as it has reported a metric
    with own_server(TRUTHLOOP_SPOT_INTERRUPTIONS="2") as (server, _):
        aws = Driver(server)
        algorithm = aws.training_request("any")["AlgorithmSpecification"] | {
            # The first host alone says it, and after its checkpoint: the second may be quicker.
            "MetricDefinitions": [{"Name": "saved", "Regex": r"saved=(\d)"}]
        }
        # When: it would take a minute, the third time a moment
        checkpoints = aws.uri("checkpoints/spot")
        request = spot(
            AlgorithmSpecification=algorithm,
            CheckpointConfig={"S3Uri": checkpoints},
            HyperParameters={"seconds_before_step_3": "60"},
            ResourceConfig={**RESOURCES, "InstanceCount": 2},  # one is taken away: the job loses both
        )
        job = aws.train(**request)
        on_demand = aws.train(AlgorithmSpecification=algorithm)
        # Then
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        assert aws.get(f"{checkpoints}/step") == b"xxx"
        once = ["Starting", "Downloading", "Training"]
        assert [each["Status"] for each in job["SecondaryStatusTransitions"]] == [
            *once, "Interrupted", *once, "Interrupted", *once, "Uploading", "Completed",
        ]  # fmt: skip
        assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]
        # And: what the first instances left besides is lost, and nobody else is interrupted
        assert aws.tar_member(job["ModelArtifacts"]["S3ModelArtifacts"], "weights.json")
        assert "Interrupted" not in {each["Status"] for each in on_demand["SecondaryStatusTransitions"]}


def test_the_time_to_wait_is_judged_as_sagemaker_judges_it(aws: Driver) -> None:
    only_spot = (
        "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
    )
    limits = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    with pytest.raises(ClientError, match=only_spot):
        aws.train(StoppingCondition=limits)
    for limits in ({"MaxRuntimeInSeconds": 60}, {"MaxRuntimeInSeconds": 61, "MaxWaitTimeInSeconds": 60}):
        with pytest.raises(ClientError, match="must be present and be greater than or equal to"):
            aws.train(**spot(StoppingCondition=limits))


def test_a_spot_job_that_waits_too_long_is_stopped(aws: Driver) -> None:
    limits = {"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1}
    job = aws.train(**spot(HyperParameters={"seconds": "60"}, StoppingCondition=limits))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")


def test_a_spot_job_whose_instances_never_come_waits_in_vain_and_costs_nothing(aws: Driver) -> None:
    request = spot(
        ResourceConfig={**RESOURCES, "InstanceType": "ml.p3.16xlarge"},
        StoppingCondition={"MaxRuntimeInSeconds": 1, "MaxWaitTimeInSeconds": 1},
    )
    said = aws.train(**request)
    phases = [each["Status"] for each in said["SecondaryStatusTransitions"]]
    assert phases == ["Starting", "MaxWaitTimeExceeded"]
    assert not {"TrainingStartTime", "TrainingTimeInSeconds", "BillableTimeInSeconds"} & set(said)
    # and the loop's own reader sees it so
    job = SageMakerJobs(aws.sagemaker).describe_training(said["TrainingJobName"])
    assert job.waited_in_vain
    assert not job.had_instances


def test_a_job_that_waits_for_instances_can_be_stopped(aws: Driver) -> None:
    scarce = {**RESOURCES, "InstanceType": "ml.p3.16xlarge"}
    name = aws.train(wait=False, **spot(ResourceConfig=scarce))["TrainingJobName"]
    aws.sagemaker.stop_training_job(TrainingJobName=name)
    job = aws.trained(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert not SageMakerJobs(aws.sagemaker).describe_training(name).waited_in_vain


def test_a_fast_file_channel_is_a_prefix_and_lies_there_as_files(aws: Driver) -> None:
    aws.put("fast/a.txt", "a")
    fast = channel("train", aws.uri("fast/"), "S3Prefix") | {"InputMode": "FastFile"}
    job = aws.train(InputDataConfig=[fast])
    seen = aws.tar_member(
        job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar", "output.tar"), "seen.json"
    )
    assert seen["data"] == {"train/a.txt": "a"}
    assert seen["inputs"]["train"]["TrainingInputMode"] == "FastFile"
    manifest = aws.put("fast.json", json.dumps([{"prefix": aws.uri("fast/")}, "a.txt"]))
    with pytest.raises(ClientError, match="FastFile mode takes an S3DataSource"):
        aws.train(InputDataConfig=[channel("train", manifest, "ManifestFile") | {"InputMode": "FastFile"}])


def test_an_isolated_container_has_no_credentials(aws: Driver) -> None:
    job = aws.train(EnableNetworkIsolation=True)
    archive = job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar", "output.tar")
    environment = aws.tar_member(archive, "seen.json")["environment"]
    assert {name for name in environment if name.startswith("AWS_")} == {
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_EC2_METADATA_DISABLED",
    }  # fmt: skip
    assert environment["AWS_ENDPOINT_URL"] != aws.server.endpoint


def test_job_names_are_unique_and_jobs_are_listed(aws: Driver) -> None:
    job = aws.train()
    with pytest.raises(ClientError, match="ResourceInUse"):
        aws.sagemaker.create_training_job(**aws.training_request(job["TrainingJobName"]))
    found = aws.sagemaker.list_training_jobs(NameContains=job["TrainingJobName"], StatusEquals="Completed")
    assert [item["TrainingJobArn"] for item in found["TrainingJobSummaries"]] == [job["TrainingJobArn"]]
    first = aws.sagemaker.list_training_jobs(MaxResults=1, SortBy="CreationTime", SortOrder="Descending")
    assert first["TrainingJobSummaries"][0]["TrainingJobName"] == job["TrainingJobName"]
    second = aws.sagemaker.list_training_jobs(MaxResults=1, NextToken=first["NextToken"])
    assert second["TrainingJobSummaries"] != first["TrainingJobSummaries"]
    with pytest.raises(ClientError, match="Invalid NextToken"):
        aws.sagemaker.list_training_jobs(NextToken="x")
    with pytest.raises(ClientError, match="Requested resource not found"):
        aws.sagemaker.describe_training_job(TrainingJobName="nobody")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ResourceConfig": {**RESOURCES, "InstanceCount": 17}}, "from 1 to 16 on the embedded AWS"),
        ({"ResourceConfig": {**RESOURCES, "InstanceCount": 0}}, "from 1 to 16 on the embedded AWS"),
        (
            {
                "ResourceConfig": {
                    "InstanceGroups": [
                        {"InstanceType": "ml.m5.large", "InstanceCount": 1, "InstanceGroupName": "a"}
                    ],
                    "VolumeSizeInGB": 1,
                }
            },
            "InstanceGroups is not supported",
        ),
        ({"InputDataConfig": [{**channel("a", "s3://b/c"), "InputMode": "Pipe"}]}, "Pipe"),
        (
            {"AlgorithmSpecification": {"TrainingImage": PROBE, "TrainingInputMode": "Pipe"}},
            "TrainingInputMode Pipe is not supported",
        ),
        ({"InputDataConfig": [{**channel("a", "s3://b/c"), "CompressionType": "Gzip"}]}, "CompressionType"),
        ({"InputDataConfig": [channel("a", "s3://b/c"), channel("a", "s3://b/c")]}, "used twice"),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": PROBE,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "x", "Regex": "("}],
                }
            },
            "Invalid regular expression",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(aws: Driver, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.create_training_job(**aws.training_request(unique("refused"), **changes))


def test_what_is_not_implemented_says_so(aws: Driver) -> None:
    with pytest.raises(ClientError, match="does not implement sagemaker:ListNotebookInstances") as caught:
        aws.sagemaker.list_notebook_instances()
    assert caught.value.response["Error"]["Code"] == "UnsupportedOperation"


def test_a_processing_job_follows_the_contract(aws: Driver) -> None:
    aws.put("gt/2026/11/a.jsonl", "one")
    manifest = aws.put("manifests/gt.json", json.dumps([{"prefix": aws.uri("gt/")}, "2026/11/a.jsonl"]))
    collect = aws.watch("SageMaker Processing Job State Change")
    inputs = [
        {
            "InputName": name,
            "S3Input": {
                "S3Uri": uri,
                "LocalPath": f"/opt/ml/processing/input/{name}",
                "S3DataType": kind,
                "S3InputMode": "File",
            },
        }
        for name, uri, kind in (
            ("prefix", aws.uri("gt"), "S3Prefix"),
            ("picked", manifest, "ManifestFile"),
        )
    ]
    job = aws.process("message=all good", "/opt/ml/processing/input=1", ProcessingInputs=inputs)
    assert job["ProcessingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["ExitMessage"] == "all good"
    report = json.loads(aws.get(aws.uri(f"processing/{job['ProcessingJobName']}/report.json")))
    assert report["data"] == {"prefix/2026/11/a.jsonl": "one", "picked/2026/11/a.jsonl": "one"}
    assert report["config"]["ProcessingJobArn"] == job["ProcessingJobArn"]
    assert report["config"]["ProcessingInputs"] == inputs
    assert report["resource"] == {"current_host": "algo-1", "hosts": ["algo-1"]}
    assert report["greeting"] == "hello"
    assert job["ProcessingStartTime"] <= job["ProcessingEndTime"]

    def last() -> dict[str, Any] | None:
        mine = [event["detail"] for event in collect() if event["resources"] == [job["ProcessingJobArn"]]]
        return mine[-1] if mine and mine[-1]["ProcessingJobStatus"] == "Completed" else None

    assert wait_until(last, what="the event")["ProcessingInputs"] == inputs


def test_a_processing_job_fails_with_its_message(aws: Driver) -> None:
    job = aws.process("message=too few labels", "exit=4")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["ExitMessage"] == "too few labels"
    assert job["FailureReason"] == "AlgorithmError: too few labels, exit code: 4"


def test_a_processing_job_without_data_or_program_fails(aws: Driver) -> None:
    missing = {
        "InputName": "x",
        "S3Input": {
            "S3Uri": aws.uri("nothing/here"),
            "LocalPath": "/opt/ml/processing/input",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }
    assert "No S3 objects found" in aws.process(ProcessingInputs=[missing])["FailureReason"]
    job = aws.process(AppSpecification={"ImageUri": PROBE, "ContainerEntrypoint": ["no-such-program"]})
    assert 'exec: "no-such-program": executable file not found' in job["FailureReason"]


def test_continuous_outputs_come_while_the_job_runs_and_stop_ends_it(aws: Driver) -> None:
    outputs = {
        "Outputs": [
            {
                "OutputName": "live",
                "S3Output": {
                    "S3Uri": aws.uri("live"),
                    "LocalPath": "/opt/ml/processing/output",
                    "S3UploadMode": "Continuous",
                },
            }
        ]
    }
    name = aws.process("seconds=60", wait=False, ProcessingOutputConfig=outputs)["ProcessingJobName"]
    wait_until(lambda: aws.keys("live/"), what="the continuous output")
    aws.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert aws.processed(name)["ProcessingJobStatus"] == "Stopped"


def test_a_processing_job_that_takes_too_long_is_stopped(aws: Driver) -> None:
    job = aws.process("seconds=60", StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert job["ProcessingJobStatus"] == "Stopped"
    assert "MaxRuntimeExceeded" in job["FailureReason"]


@pytest.mark.parametrize("mode", ["EndOfJob", "Continuous"])
def test_an_output_that_cannot_be_written_fails_the_job(aws: Driver, mode: str) -> None:
    uri, path = "s3://no-such-bucket/x", "/opt/ml/processing/output"
    output = {"S3Uri": uri, "LocalPath": path, "S3UploadMode": mode}
    outputs = {"Outputs": [{"OutputName": "o", "S3Output": output}]}
    job = aws.process(ProcessingOutputConfig=outputs)
    assert job["ProcessingJobStatus"] == "Failed"
    assert "Failed to upload to s3://no-such-bucket/x/report.json" in job["FailureReason"]


@pytest.mark.parametrize("path", ["/tmp/x", "/opt/ml/../etc"])
def test_a_local_path_outside_the_container_is_refused(aws: Driver, path: str) -> None:
    output = {"S3Uri": aws.uri("x"), "LocalPath": path, "S3UploadMode": "EndOfJob"}
    with pytest.raises(ClientError, match="must lie below /opt/ml"):
        aws.process(ProcessingOutputConfig={"Outputs": [{"OutputName": "o", "S3Output": output}]})


def test_tags_can_be_read_and_changed(aws: Driver) -> None:
    job = aws.train(Tags=[{"Key": "team", "Value": "a"}])
    arn = job["TrainingJobArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "cost", "Value": "b"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team"])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "cost", "Value": "b"}]
    with pytest.raises(ClientError, match="ResourceNotFound"):
        aws.sagemaker.list_tags(ResourceArn=arn + "x")


def test_the_server_is_not_left_with_files_of_ended_jobs(aws: Driver) -> None:
    job = aws.train()
    seen = aws.tar_member(
        job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar", "output.tar"), "seen.json"
    )
    assert not os.path.exists(seen["environment"]["ML_BASE_DIR"])


def test_data_moves_with_the_rights_of_the_role(aws: Driver) -> None:
    aws.put("rights/a", "a")
    inputs = [channel("train", aws.uri("rights"))]
    enough = role(aws, "s3:ListBucket", "s3:GetObject", "s3:PutObject")
    assert aws.train(RoleArn=enough, InputDataConfig=inputs)["TrainingJobStatus"] == "Completed"
    for rights, reason in (
        (("s3:GetObject", "s3:PutObject"), "s3:ListBucket"),
        (("s3:ListBucket", "s3:PutObject"), "Forbidden"),
        (("s3:ListBucket", "s3:GetObject"), "s3:PutObject"),
    ):
        job = aws.train(RoleArn=role(aws, *rights), InputDataConfig=inputs)
        assert job["TrainingJobStatus"] == "Failed"
        assert reason in job["FailureReason"]
