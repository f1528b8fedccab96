"""The registry of the embedded AWS: versions, approval, listing, events."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.sagemaker_driver import PROBE, ROLE, Driver, unique, wait_until


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


@pytest.fixture
def group(aws: Driver) -> str:
    name = unique("group")
    aws.sagemaker.create_model_package_group(ModelPackageGroupName=name, ModelPackageGroupDescription="d")
    return name


def package(aws: Driver, group: str, status: str = "PendingManualApproval", **more: Any) -> str:
    return str(
        aws.sagemaker.create_model_package(
            ModelPackageGroupName=group,
            ModelApprovalStatus=status,
            InferenceSpecification={
                "Containers": [{"Image": PROBE, "ModelDataUrl": "s3://b/model.tar.gz"}],
                "SupportedContentTypes": ["image/png"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            **more,
        )["ModelPackageArn"]
    )


def test_versions_are_counted_and_approved(aws: Driver, group: str) -> None:
    collect = aws.watch("SageMaker Model Package State Change")
    metrics = {"ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://b/e.json"}}}
    first = package(aws, group, ModelMetrics=metrics, CustomerMetadataProperties={"a": "1", "b": "2"})
    second = package(aws, group)
    assert first.endswith(f":model-package/{group}/1")
    assert second.endswith(f":model-package/{group}/2")

    aws.sagemaker.update_model_package(
        ModelPackageArn=first, ModelApprovalStatus="Approved", ApprovalDescription="looks right"
    )
    aws.sagemaker.update_model_package(
        ModelPackageArn=first,
        CustomerMetadataProperties={"c": "3"},
        CustomerMetadataPropertiesToRemove=["a"],
    )
    body = aws.sagemaker.describe_model_package(ModelPackageName=first)
    assert body["ModelApprovalStatus"] == "Approved"
    assert body["ApprovalDescription"] == "looks right"
    assert body["CustomerMetadataProperties"] == {"b": "2", "c": "3"}
    assert body["ModelMetrics"] == metrics
    assert body["ModelPackageVersion"] == 1
    assert body["ModelPackageStatus"] == "Completed"

    def details() -> list[dict[str, Any]]:
        return [event["detail"] for event in collect() if event["resources"] == [first]]

    wait_until(lambda: len(details()) >= 3, what="three events")
    fields = sorted((d["UpdatedModelPackageFields"] for d in details()), key=str)
    assert fields == [
        ["CustomerMetadataProperties"],
        ["ModelApprovalStatus", "ApprovalDescription"],
        ["ModelApprovalStatus"],
    ]
    approved = next(d for d in details() if "ApprovalDescription" in d["UpdatedModelPackageFields"])
    assert approved["ModelApprovalStatus"] == "Approved"
    assert approved["ModelPackageGroupName"] == group
    assert approved["ModelPackageVersion"] == 1
    assert approved["CreationTime"].endswith("Z")
    assert approved["InferenceSpecification"]["Containers"][0]["Image"] == PROBE


def test_packages_are_filtered_and_sorted(aws: Driver, group: str) -> None:
    arns = [package(aws, group, status) for status in ("Approved", "Rejected", "Approved")]

    def listed(**filters: Any) -> list[str]:
        found = aws.sagemaker.list_model_packages(ModelPackageGroupName=group, **filters)
        return [item["ModelPackageArn"] for item in found["ModelPackageSummaryList"]]

    assert listed() == arns[::-1]
    assert listed(SortOrder="Ascending") == arns
    assert listed(ModelApprovalStatus="Approved", MaxResults=1) == [arns[2]]
    assert listed(ModelApprovalStatus="Rejected") == [arns[1]]
    assert listed(ModelApprovalStatus="PendingManualApproval") == []


def test_a_deleted_version_is_not_used_again(aws: Driver, group: str) -> None:
    arn = package(aws, group)
    with pytest.raises(ClientError, match="still contains Model Packages"):
        aws.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    aws.sagemaker.delete_model_package(ModelPackageName=arn)
    with pytest.raises(ClientError, match="does not exist"):
        aws.sagemaker.describe_model_package(ModelPackageName=arn)
    again = package(aws, group)
    assert again.endswith("/2")
    aws.sagemaker.delete_model_package(ModelPackageName=again)
    aws.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    with pytest.raises(ClientError, match="does not exist"):
        aws.sagemaker.describe_model_package_group(ModelPackageGroupName=group)


def test_wrong_requests_are_refused(aws: Driver, group: str) -> None:
    arn = package(aws, group)
    lax = aws.server.client("sagemaker", parameter_validation=False)
    with pytest.raises(ClientError, match="must satisfy enum value set"):
        lax.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Perhaps")
    with pytest.raises(ClientError, match="does not exist"):
        package(aws, "nobody")
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        aws.sagemaker.create_model_package(ModelPackageName="unversioned")
    with pytest.raises(ClientError, match="already exists"):
        aws.sagemaker.create_model_package_group(ModelPackageGroupName=group)


def test_the_same_token_registers_once(aws: Driver, group: str) -> None:
    token = unique("token")
    assert package(aws, group, ClientToken=token) == package(aws, group, ClientToken=token)


def test_an_endpoint_serves_a_package(aws: Driver, group: str) -> None:
    url = aws.model_data(answer="from the registry")
    arn = aws.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={"Containers": [{"Image": PROBE, "ModelDataUrl": url}]},
    )["ModelPackageArn"]
    name = unique("package-model")
    aws.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"ModelPackageName": arn}
    )
    variant = {
        "VariantName": "v",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.g4dn.xlarge",
    }
    aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    status = wait_until(
        lambda: (
            aws.sagemaker.describe_endpoint(EndpointName=name)
            if aws.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] != "Creating"
            else None
        )
    )
    assert status["EndpointStatus"] == "InService", status
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body=b"x")["Body"].read()
    assert b"from the registry" in answer
    aws.sagemaker.delete_endpoint(EndpointName=name)
