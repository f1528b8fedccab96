"""The model registry: groups, versioned packages, approval, and their events."""

from __future__ import annotations

import copy

from local.sagemaker.errors import ConflictError, UnsupportedOperation, ValidationError
from local.sagemaker.operations import Call, operation, page
from local.sagemaker.publisher import with_seconds
from local.sagemaker.state import Params, Record, RegionState, SageMaker, now, tags_of

EVENT_TYPE = "SageMaker Model Package State Change"
_COPIED = (
    "ModelPackageDescription",
    "InferenceSpecification",
    "SourceAlgorithmSpecification",
    "MetadataProperties",
    "ModelMetrics",
    "Domain",
    "Task",
    "SamplePayloadUrl",
    "CustomerMetadataProperties",
    "DriftCheckBaselines",
    "AdditionalInferenceSpecifications",
    "SkipModelValidation",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
    "ModelPackageRegistrationType",
)


def group_of(state: RegionState, name_or_arn: str) -> Record:
    """Return a group.

    Raises
    ------
    ValidationError
        There is none of this name.
    """
    name = name_or_arn.rsplit("/", 1)[-1]
    group = state.package_groups.get(name)
    if group is None:
        raise ValidationError(f"ModelPackageGroup {name_or_arn} does not exist.")
    return group


def package_of(state: RegionState, arn: str) -> Record:
    """Return a package by its ARN.

    Raises
    ------
    ValidationError
        There is none.
    """
    package = state.packages.get(arn)
    if package is None:
        raise ValidationError(f"ModelPackage {arn} does not exist.")
    return package


@operation("CreateModelPackageGroup")
def create_group(call: Call) -> Params:
    """CreateModelPackageGroup."""
    name = call["ModelPackageGroupName"]
    arn = call.sagemaker.arn(call.region, f"model-package-group/{name}")
    with call.state.lock:
        if name in call.state.package_groups:
            raise ValidationError(f"Model Package Group already exists: {arn}")
        call.state.package_groups[name] = Record(
            arn,
            {
                "ModelPackageGroupName": name,
                "ModelPackageGroupArn": arn,
                "ModelPackageGroupDescription": call.get("ModelPackageGroupDescription"),
                "CreationTime": now(),
                "CreatedBy": {},
                "ModelPackageGroupStatus": "Completed",
            },
            tags_of(call.params),
        )
    return {"ModelPackageGroupArn": arn}


@operation("DescribeModelPackageGroup")
def describe_group(call: Call) -> Params:
    """DescribeModelPackageGroup."""
    return group_of(call.state, call["ModelPackageGroupName"]).body


@operation("ListModelPackageGroups")
def list_groups(call: Call) -> Params:
    """ListModelPackageGroups."""
    return page(
        call,
        [group.body for group in list(call.state.package_groups.values())],
        result="ModelPackageGroupSummaryList",
        sort={
            "Name": lambda item: item["ModelPackageGroupName"],
            "CreationTime": lambda item: item["CreationTime"],
        },
        default_sort="CreationTime",
        name_of=lambda item: str(item["ModelPackageGroupName"]),
    )


@operation("DeleteModelPackageGroup")
def delete_group(call: Call) -> Params:
    """DeleteModelPackageGroup: only an empty one can go."""
    with call.state.lock:
        group = group_of(call.state, call["ModelPackageGroupName"])
        name = group.body["ModelPackageGroupName"]
        if any(package.body.get("ModelPackageGroupName") == name for package in call.state.packages.values()):
            raise ConflictError(
                f"Model Package Group cannot be deleted because it still contains Model Packages: {group.arn}"
            )
        del call.state.package_groups[name]
    return {}


@operation("CreateModelPackage")
def create_package(call: Call) -> Params:
    """CreateModelPackage."""
    return {"ModelPackageArn": create(call.sagemaker, call.region, call.params)}


def create(sagemaker: SageMaker, region: str, request: Params) -> str:
    """Create the next version in a group and return its ARN.

    Raises
    ------
    ValidationError, UnsupportedOperation
        The group is missing, the status is none, or the package would be unversioned.
    """
    state = sagemaker.region(region)
    if not request.get("ModelPackageGroupName"):
        raise UnsupportedOperation(
            "CreateModelPackage without ModelPackageGroupName: the embedded AWS has versioned packages only."
        )
    if request.get("ModelPackageName"):
        raise ValidationError(
            "Both ModelPackageName and ModelPackageGroupName are provided. Provide only one."
        )
    approval = request.get("ModelApprovalStatus") or "PendingManualApproval"
    for index, container in enumerate((request.get("InferenceSpecification") or {}).get("Containers") or []):
        if not container.get("Image"):
            raise ValidationError(f"InferenceSpecification.Containers[{index}].Image must not be empty.")
    with state.lock:
        token = request.get("ClientToken")
        if token and token in state.package_tokens:
            return state.package_tokens[token]
        group = group_of(state, request["ModelPackageGroupName"])
        name = group.body["ModelPackageGroupName"]
        version = state.last_versions.get(name, 0) + 1
        state.last_versions[name] = version
        arn = sagemaker.arn(region, f"model-package/{name}/{version}")
        created = now()
        body: Params = {
            **{key: copy.deepcopy(request[key]) for key in _COPIED if request.get(key) is not None},
            "ModelPackageGroupName": name,
            "ModelPackageVersion": version,
            "ModelPackageArn": arn,
            "CreationTime": created,
            "LastModifiedTime": created,
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CertifyForMarketplace": bool(request.get("CertifyForMarketplace")),
            "ModelApprovalStatus": approval,
        }
        state.packages[arn] = Record(arn, body, tags_of(request))
        if token:
            state.package_tokens[token] = arn
    # AWS names on creation only the status that the package was created with.
    _publish(sagemaker, region, body, ["ModelApprovalStatus"])
    return arn


@operation("DescribeModelPackage")
def describe_package(call: Call) -> Params:
    """DescribeModelPackage."""
    return package_of(call.state, call["ModelPackageName"]).body


@operation("UpdateModelPackage")
def update_package(call: Call) -> Params:
    """UpdateModelPackage."""
    changed: list[str] = []
    with call.state.lock:
        package = package_of(call.state, call["ModelPackageArn"])
        body = dict(package.body)
        if call.get("AdditionalInferenceSpecificationsToAdd"):
            raise UnsupportedOperation("AdditionalInferenceSpecificationsToAdd is not supported.")
        for key in (
            "ModelApprovalStatus",
            "ApprovalDescription",
            "InferenceSpecification",
            "SourceUri",
            "ModelCard",
            "ModelLifeCycle",
            "ModelPackageRegistrationType",
        ):
            if call.get(key) is not None:
                body[key] = call[key]
                changed.append(key)
        added = call.get("CustomerMetadataProperties")
        removed = call.get("CustomerMetadataPropertiesToRemove")
        if added or removed:
            properties = {**(body.get("CustomerMetadataProperties") or {}), **(added or {})}
            for key in removed or []:
                properties.pop(key, None)
            body["CustomerMetadataProperties"] = properties
            changed.append("CustomerMetadataProperties")
        body["LastModifiedTime"] = now()
        package.body = body
    _publish(call.sagemaker, call.region, body, changed)
    return {"ModelPackageArn": package.arn}


@operation("DeleteModelPackage")
def delete_package(call: Call) -> Params:
    """DeleteModelPackage; the version number is not used again."""
    with call.state.lock:
        package = package_of(call.state, call["ModelPackageName"])
        del call.state.packages[package.arn]
    return {}


@operation("ListModelPackages")
def list_packages(call: Call) -> Params:
    """ListModelPackages."""
    items: list[Params] = [package.body for package in list(call.state.packages.values())]
    group = call.get("ModelPackageGroupName")
    if group is None and call.get("ModelPackageType", "Unversioned") == "Unversioned":
        items = []
    if group is not None:
        name = group_of(call.state, group).body["ModelPackageGroupName"]
        items = [item for item in items if item["ModelPackageGroupName"] == name]
    approval = call.get("ModelApprovalStatus")
    if approval is not None:
        items = [item for item in items if item["ModelApprovalStatus"] == approval]
    return page(
        call,
        items,
        result="ModelPackageSummaryList",
        sort={
            "Name": lambda item: (item["ModelPackageGroupName"], item["ModelPackageVersion"]),
            "CreationTime": lambda item: item["CreationTime"],
        },
        default_sort="CreationTime",
        name_of=lambda item: str(item["ModelPackageGroupName"]),
    )


def _publish(sagemaker: SageMaker, region: str, body: Params, changed: list[str]) -> None:
    detail = {key: value for key, value in with_seconds(body).items() if value is not None}
    detail["UpdatedModelPackageFields"] = changed
    sagemaker.publisher.publish(region, EVENT_TYPE, [body["ModelPackageArn"]], detail)
