"""Take the one step that the reconciler has named."""

from __future__ import annotations

from typing import TypedDict

from truthloop.errors import (
    AwsRequestFailed,
    DeploymentRefused,
    EndpointBusy,
    InvalidEvent,
    TransientAwsError,
)
from truthloop.inputs import PlanInput, shown
from truthloop.ports import Ports
from truthloop.serving.deployment import (
    CREATE,
    RECREATE,
    UPDATE,
    EndpointState,
    deployment_config,
    is_broken,
    is_changing,
    plan_target,
)

_INVALID = frozenset({"ValidationException"})
"""A quota or a missing permission is not the package's fault: those fail the execution and reject nothing."""


class ApplyOutput(TypedDict):
    """What is being put into service."""

    endpointName: str
    configName: str


def apply_deployment(event: object, ports: Ports) -> ApplyOutput:
    """Create, update or delete the endpoint; a retry finds what an earlier attempt has asked for.

    A broken endpoint cannot be updated: RECREATE asks for its deletion and ends as busy, so that the machine
    looks again until it is gone and is then told to CREATE.

    A package that SageMaker refuses is told from a busy endpoint by describing, never by the message: both
    get the same code.

    Raises
    ------
    EndpointBusy
        When the endpoint is being changed (by somebody else, or deleted by this): reconcile again later.
    DeploymentRefused
        When SageMaker finds the model, the configuration or the change invalid, with the endpoint at rest.
    TransientAwsError
        When it refused and the endpoint has changed meanwhile, so that the same call may be taken now.
    InvalidEvent
        When the action is not one to apply, or nothing is desired.
    """
    given = PlanInput.parse(event)
    action = given.action
    if action not in (CREATE, UPDATE, RECREATE) or given.package is None:
        raise InvalidEvent(
            f"there is nothing to apply for the action {shown(action)} and the package {shown(given.package)}"
        )
    endpoint = ports.endpoint
    before = endpoint.state()
    if action == RECREATE:
        # An earlier attempt or another execution may have mended it: only what is broken now is deleted.
        if before is not None and is_broken(before):
            endpoint.delete()
        raise EndpointBusy(f"{endpoint.name} is broken and being deleted; it is created when it is gone")

    settings = ports.settings.deployment
    package = ports.registry.describe(given.package)
    target = plan_target(endpoint.name, package, settings)
    answer: ApplyOutput = {"endpointName": endpoint.name, "configName": target.config_name}
    if _is_under_way(before, target.config_name):
        return answer
    if (before is None) != (action == CREATE):
        raise EndpointBusy(f"{endpoint.name} {'is gone' if before is None else 'exists'} by now")
    try:
        endpoint.ensure_model(target, settings.role_arn)
        endpoint.ensure_config(target, settings, ports.objects.bucket)
        if action == CREATE:
            endpoint.create(target.config_name)
        else:
            endpoint.update(target.config_name, deployment_config(settings))
    except AwsRequestFailed as error:
        after = endpoint.state()
        if _is_under_way(after, target.config_name):
            return answer
        if error.code not in _INVALID:
            raise
        if after != before:
            raise TransientAwsError(
                f"{endpoint.name} changed during the {action.lower()}: {error}"
            ) from error
        raise DeploymentRefused(f"version {package.version}: {error}") from error
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
