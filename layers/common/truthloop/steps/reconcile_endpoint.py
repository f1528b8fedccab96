"""Compare what should be served with what is served."""

from __future__ import annotations

from typing import TypedDict

from truthloop.ports import Ports
from truthloop.serving.deployment import NONE, UPDATE, Target, plan_action, plan_target
from truthloop.serving.registry import APPROVED


class DesiredOutput(TypedDict):
    """The package that should be served."""

    modelPackageArn: str
    version: int


class ReconcileOutput(TypedDict):
    """One step towards agreement."""

    action: str
    endpointName: str
    desired: DesiredOutput | None
    modelName: str | None
    configName: str | None
    message: str


def reconcile_endpoint(_: object, ports: Ports) -> ReconcileOutput:
    """Say which one action brings the endpoint towards the newest Approved package.

    It is told nothing and remembers nothing: duplicate, late and out-of-order events all lead to the same
    answer. What is in service agrees only when it has passed its smoke test.
    """
    package = ports.registry.newest(APPROVED)
    target: Target | None = None
    if package is not None:
        target = plan_target(ports.endpoint.name, package, ports.settings.deployment)
    action, message = plan_action(target, ports.endpoint.state())
    if action == NONE and target is not None and not ports.table.was_tested(target.config_name):
        # Its deployment was cut off before the smoke test: to apply it again is to find it and go on.
        action, message = UPDATE, f"version {target.package.version} is in service and was never tested"
    return {
        "action": action,
        "endpointName": ports.endpoint.name,
        "desired": {"modelPackageArn": package.arn, "version": package.version} if package else None,
        "modelName": target.model_name if target else None,
        "configName": target.config_name if target else None,
        "message": message,
    }
