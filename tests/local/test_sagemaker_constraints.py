"""What SageMaker refuses before it looks: lengths, patterns, ranges, enumerations, missing members."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.sagemaker.constraints import violations
from tests.local.sagemaker_driver import PROBE, ROLE

JOB: dict[str, Any] = {
    "TrainingJobName": "a-job",
    "AlgorithmSpecification": {"TrainingImage": PROBE, "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
    "ResourceConfig": {"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


def test_a_proper_request_passes() -> None:
    assert violations("CreateTrainingJob", JOB) == []


@pytest.mark.parametrize(
    ("changes", "where", "rule"),
    [
        ({"TrainingJobName": "a_b"}, "trainingJobName", "regular expression pattern: [a-zA-Z0-9]"),
        ({"TrainingJobName": "a" * 64}, "trainingJobName", "length less than or equal to 63"),
        ({"TrainingJobName": None}, "trainingJobName", "must not be null"),
        ({"RoleArn": "me, myself and I, of course"}, "roleArn", "regular expression pattern"),
        ({"OutputDataConfig": {"S3OutputPath": "/tmp/x"}}, "outputDataConfig.s3OutputPath", "(https|s3)"),
        (
            {"ResourceConfig": {"InstanceType": "ml.abacus", "InstanceCount": 1}},
            "resourceConfig.instanceType",
            "enum value set: [ml.m4.xlarge",
        ),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "stoppingCondition.maxRuntimeInSeconds", "value"),
        ({"HyperParameters": {"a": "x" * 2501}}, "hyperParameters", "Map value must satisfy constraint"),
        ({"HyperParameters": {"k" * 257: "x"}}, "hyperParameters", "Map key must satisfy constraint"),
        ({"Tags": [{"Key": "", "Value": "v"}]}, "tags.1.member.key", "greater than or equal to 1"),
        ({"Tags": [{"Value": "v"}]}, "tags.1.member.key", "must not be null"),
    ],
)
def test_each_constraint_is_named_with_its_member(changes: dict[str, Any], where: str, rule: str) -> None:
    found = violations("CreateTrainingJob", {**JOB, **changes})
    assert f"at '{where}' failed to satisfy constraint: " in found[0]
    assert rule in found[0]
    assert len(found[0]) < 800


def test_a_request_is_refused_as_a_whole(server: Any) -> None:
    sagemaker = server.client("sagemaker")
    with pytest.raises(ClientError, match="2 validation errors detected: Value 'a_b'") as caught:
        sagemaker.create_training_job(**{**JOB, "TrainingJobName": "a_b", "RoleArn": "x" * 20})
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError, match="pipelineExecutionArn"):
        sagemaker.describe_pipeline_execution(PipelineExecutionArn="none")
    assert not sagemaker.list_training_jobs(NameContains="a_b".replace("_", "-"))["TrainingJobSummaries"]


@pytest.mark.parametrize("member", ["AlgorithmSpecification", "ResourceConfig"])
def test_what_only_serverless_training_may_omit_is_missed(server: Any, member: str) -> None:
    request = {name: value for name, value in JOB.items() if name != member}
    with pytest.raises(ClientError, match=f"{member} is missing"):
        server.client("sagemaker").create_training_job(**request)


def test_a_client_that_checks_nothing_gets_the_same_answer(server: Any) -> None:
    request = urllib.request.Request(
        server.endpoint,
        json.dumps({"TrainingJobName": "bare"}).encode(),
        {
            "X-Amz-Target": "SageMaker.CreateTrainingJob",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261122/us-east-1/sagemaker/aws4_request",
        },
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    answer = json.loads(caught.value.read())
    assert caught.value.code == 400
    assert "'outputDataConfig' failed to satisfy constraint: Member must not be null" in str(answer)
