"""Take the one step that the reconciler has named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from truthloop.deployment import (
    CREATE,
    RECREATE,
    UPDATE,
    EndpointState,
    deployment_config,
    is_changing,
    plan_target,
)
from truthloop.errors import EndpointBusy, InvalidEvent, TransientAwsError
from truthloop.ports import Ports


class ApplyOutput(TypedDict):
    """What is being put into service."""

    endpointName: str
    configName: str


def apply_deployment(event: Mapping[str, Any], ports: Ports) -> ApplyOutput:
    """Create, update or delete the endpoint; a retry finds what an earlier attempt has asked for.

    A broken endpoint cannot be updated: RECREATE asks for its deletion and ends as busy, so that the machine
    looks again until it is gone and is then told to CREATE.

    Raises
    ------
    EndpointBusy
        When the endpoint is being changed (by somebody else, or deleted by this): reconcile again later.
    TransientAwsError
        When SageMaker refused a change of an endpoint that is not being changed any more.
    InvalidEvent
        When the action is not one to apply.
    """
    action = event["action"]
    if action not in (CREATE, UPDATE, RECREATE):
        raise InvalidEvent(f"there is nothing to apply for the action {action!r}")
    endpoint = ports.endpoint
    if action == RECREATE:
        endpoint.delete()
        raise EndpointBusy(f"{endpoint.name} is broken and being deleted; it is created when it is gone")

    settings = ports.settings.deployment
    package = ports.registry.describe(str(event["desired"]["modelPackageArn"]))
    target = plan_target(endpoint.name, package, settings)
    answer: ApplyOutput = {"endpointName": endpoint.name, "configName": target.config_name}
    if _is_under_way(endpoint.state(), target.config_name):
        return answer
    endpoint.ensure_model(target, settings.role_arn)
    endpoint.ensure_config(target, settings, ports.objects.bucket)
    if action == CREATE:
        taken = endpoint.create(target.config_name)
    else:
        taken = endpoint.update(target.config_name, deployment_config(settings))
    if not taken and not _is_under_way(endpoint.state(), target.config_name):
        raise TransientAwsError(
            f"SageMaker refused to {action.lower()} {endpoint.name}, which is at rest now"
        )
    return answer


def _is_under_way(state: EndpointState | None, config_name: str) -> bool:
    """Whether the endpoint has, or is getting, the configuration.

    Raises
    ------
    EndpointBusy
        When it is getting something else.
    """
    if state is None:
        return False
    getting = state.pending_config_name or state.config_name
    if is_changing(state):
        if getting == config_name and state.status in ("Creating", "Updating"):
            return True
        raise EndpointBusy(f"the endpoint is {state.status} with {getting}")
    return state.config_name == config_name
