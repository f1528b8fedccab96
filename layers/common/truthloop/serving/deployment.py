"""Deploy is a reconciler: what should be served, what is served, and the one step between."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from truthloop.errors import SmokeTestFailed
from truthloop.instances.hardware import inference_ami
from truthloop.names import digest, resource_name
from truthloop.serving.registry import ModelPackage
from truthloop.settings import DeploymentSettings

NONE = "NONE"
WAIT = "WAIT"
CREATE = "CREATE"
UPDATE = "UPDATE"
RECREATE = "RECREATE"

_CHANGING = frozenset({"Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting"})
_BROKEN = frozenset({"Failed", "UpdateRollbackFailed"})
_SHORTEST_TIMEOUT, _LONGEST_TIMEOUT = 600, 28800  # SageMaker's bounds, in seconds
_PROVISIONING_SECONDS = 1800

SMOKE_TEST_EXAMPLES = 5


@dataclass(frozen=True)
class EndpointState:
    """The endpoint as it is: its status, the configuration in service and the one being put into service."""

    status: str
    config_name: str
    pending_config_name: str | None
    last_modified: datetime
    failure_reason: str = ""


@dataclass(frozen=True)
class Target:
    """What the endpoint should become; names derive from the package and the settings."""

    package: ModelPackage
    model_name: str
    config_name: str


def plan_target(endpoint_name: str, package: ModelPackage, settings: DeploymentSettings) -> Target:
    """Name the model and the endpoint configuration of `package` under `settings`.

    The package's creation time is part of the digest: a group that was deleted and made again counts its
    versions from 1, and an old version 1 must not be taken for the new one.
    """
    version = f"v{package.version}"
    incarnation = digest(package.arn, package.created_at.isoformat(), package.model_data_url)
    model_name = resource_name(endpoint_name, version, incarnation[:8])
    wanted = {**asdict(settings), "ami": inference_ami(settings.instance_type)}
    what = json.dumps(wanted, sort_keys=True, default=list)
    config_name = resource_name(endpoint_name, version, digest(model_name, what)[:12])
    return Target(package, model_name, config_name)


def plan_action(target: Target | None, endpoint: EndpointState | None) -> tuple[str, str]:
    """Return the action that brings the endpoint towards `target`, and why in words."""
    if target is None:
        return NONE, "no package of the group is approved; what is in service stays"
    version = f"version {target.package.version}"
    if endpoint is None:
        return CREATE, f"there is no endpoint; {version} is approved"
    if endpoint.status in _CHANGING:
        return WAIT, f"the endpoint is {endpoint.status}"
    if endpoint.status in _BROKEN:
        return RECREATE, f"the endpoint is {endpoint.status} ({endpoint.failure_reason or 'no reason given'})"
    if endpoint.config_name == target.config_name:
        return NONE, f"{version} is in service with the wanted settings"
    return UPDATE, f"{endpoint.config_name} is in service; {version} is approved"


def is_changing(endpoint: EndpointState) -> bool:
    """Whether SageMaker is at work on the endpoint and would refuse another change."""
    return endpoint.status in _CHANGING


def is_broken(endpoint: EndpointState) -> bool:
    """Whether the endpoint can only be deleted."""
    return endpoint.status in _BROKEN


def deployment_config(settings: DeploymentSettings) -> dict[str, Any]:
    """Return UpdateEndpoint's DeploymentConfig: blue/green with a bake time and automatic rollback.

    A canary may take at most half of the fleet, so one instance allows ALL_AT_ONCE only; boto3 demands
    WaitIntervalInSeconds even then.
    """
    bake = settings.bake_seconds
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    if settings.instance_count >= 2:
        routing = {
            "Type": "CANARY",
            "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "WaitIntervalInSeconds": bake,
        }
    longest = max(_SHORTEST_TIMEOUT, 2 * bake + _PROVISIONING_SECONDS)
    config: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": bake,
            "MaximumExecutionTimeoutInSeconds": min(longest, _LONGEST_TIMEOUT),
        }
    }
    if settings.alarm_names:
        config["AutoRollbackConfiguration"] = {
            "Alarms": [{"AlarmName": name} for name in settings.alarm_names]
        }
    return config


def endpoint_config(target: Target, settings: DeploymentSettings, bucket: str) -> dict[str, Any]:
    """Return CreateEndpointConfig's request. Every configuration captures data: training rests on it."""
    variant: dict[str, Any] = {
        "VariantName": settings.variant_name,
        "ModelName": target.model_name,
        "InitialInstanceCount": settings.instance_count,
        "InstanceType": settings.instance_type,
        "InitialVariantWeight": 1.0,
    }
    if ami := inference_ami(settings.instance_type):
        variant["InferenceAmiVersion"] = ami
    return {
        "EndpointConfigName": target.config_name,
        "ProductionVariants": [variant],
        "DataCaptureConfig": {
            "EnableCapture": True,
            "InitialSamplingPercentage": settings.capture_share_percent,
            "DestinationS3Uri": f"s3://{bucket}/capture",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        },
    }


def choose_examples(keys: Iterable[str], prefix: str) -> list[tuple[str, str]]:
    """Choose up to five known examples, one label after the other; returns (key, label).

    Keys are ``<prefix><label>/<name>.png`` (or ``.jpg``, ``.jpeg``); others are passed over.
    """
    by_label: dict[str, list[str]] = {}
    for key in sorted(keys):
        label, _, name = key.removeprefix(prefix).partition("/")
        if label and name.lower().endswith((".png", ".jpg", ".jpeg")):
            by_label.setdefault(label, []).append(key)
    rounds = max((len(found) for found in by_label.values()), default=0)
    spread = [(found[i], label) for i in range(rounds) for label, found in by_label.items() if i < len(found)]
    return spread[:SMOKE_TEST_EXAMPLES]


def judge_answer(body: bytes, key: str) -> str:
    """Return the label of the endpoint's answer to one example.

    Raises
    ------
    SmokeTestFailed
        When the answer is not JSON with a label (text) and a score (0 to 1).
    """
    try:
        answer = json.loads(body)
        label, score = answer["label"], float(answer["score"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SmokeTestFailed(
            f"the answer to {key} is not JSON with label and score ({error!r}): {body[:200]!r}"
        ) from error
    if not isinstance(label, str) or not 0 <= score <= 1:
        raise SmokeTestFailed(f"the answer to {key} has label {label!r} and score {score}")
    return label


def judge_labels(expected: list[str], answered: list[str]) -> None:
    """Demand that more than half of the known examples are labelled rightly.

    The comparison on the holdout has judged quality; this finds an endpoint that serves the wrong model or
    feeds it garbage. Half is lenient on purpose: a model at the 0.85 gate fails it by chance in 3 of 100
    deployments, and "at most one wrong of five" would in 16.

    Raises
    ------
    SmokeTestFailed
        When half or fewer are right.
    """
    right = sum(1 for want, got in zip(expected, answered, strict=True) if want == got)
    if expected and right * 2 <= len(expected):
        pairs = ", ".join(f"{want} as {got}" for want, got in zip(expected, answered, strict=True))
        raise SmokeTestFailed(f"only {right} of {len(expected)} known examples are labelled rightly: {pairs}")
