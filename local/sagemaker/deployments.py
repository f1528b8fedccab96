"""Blue/green deployments: traffic shifting, baking, alarms, rollback.

The new (green) fleet is healthy before it gets a request, and the old (blue) one finishes what it has
begun before it is ended, so that a deployment loses no request.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from local.sagemaker.errors import JobError, UnsupportedOperation, ValidationError
from local.sagemaker.fleets import Fleet
from local.sagemaker.state import Params, SageMaker, now

log = logging.getLogger("local.sagemaker")

_ALARM_POLL_SECONDS = 0.25


class RolledBackError(Exception):
    """A deployment was taken back; the message becomes the endpoint's FailureReason."""


@dataclass(frozen=True)
class Policy:
    """How traffic moves.

    Attributes
    ----------
    steps
        Share of the traffic that the green fleet gets in each step; the last is 1.
    wait
        Seconds after each step but the last.
    termination_wait
        Seconds after the last step, before the blue fleet is ended.
    limit
        Seconds that the whole may take.
    alarms
        Names of the alarms that take it back.
    """

    kind: str = "ALL_AT_ONCE"
    steps: tuple[float, ...] = (1.0,)
    wait: float = 0.0
    termination_wait: float = 0.0
    limit: float = 14400.0
    alarms: tuple[str, ...] = ()


def policy_of(config: Params | None, endpoint_config: Params) -> Policy:
    """Read a DeploymentConfig.

    Raises
    ------
    ValidationError, UnsupportedOperation
        The sizes are wrong, or the policy is a rolling one.
    """
    if not config:
        return Policy()
    if config.get("RollingUpdatePolicy"):
        raise UnsupportedOperation(
            "DeploymentConfig.RollingUpdatePolicy is not supported by the embedded AWS: "
            "use BlueGreenUpdatePolicy."
        )
    blue_green = config.get("BlueGreenUpdatePolicy") or {}
    routing = blue_green.get("TrafficRoutingConfiguration") or {"Type": "ALL_AT_ONCE"}
    instances = sum(int(v.get("InitialInstanceCount", 1)) for v in endpoint_config["ProductionVariants"])
    alarms = (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or []
    kind = routing["Type"]
    return Policy(
        kind=kind,
        steps=_steps(kind, routing, instances),
        wait=float(routing.get("WaitIntervalInSeconds", 0)),
        termination_wait=float(blue_green.get("TerminationWaitInSeconds", 0)),
        limit=float(blue_green.get("MaximumExecutionTimeoutInSeconds", 14400)),
        alarms=tuple(alarm["AlarmName"] for alarm in alarms),
    )


def _steps(kind: str, routing: Params, instances: int) -> tuple[float, ...]:
    if kind == "ALL_AT_ONCE":
        return (1.0,)
    if kind == "CANARY":
        return (_share(routing.get("CanarySize"), "CanarySize", instances, 0.0), 1.0)
    if kind == "LINEAR":
        share = _share(routing.get("LinearStepSize"), "LinearStepSize", instances, 0.1)
        steps, reached = [], share
        while reached < 1.0 - 1e-9:
            steps.append(reached)
            reached += share
        return (*steps, 1.0)
    raise ValidationError(f"TrafficRoutingConfiguration.Type must be ALL_AT_ONCE, CANARY or LINEAR: {kind!r}")


def _share(size: Params | None, name: str, instances: int, least: float) -> float:
    if not size:
        raise ValidationError(f"TrafficRoutingConfiguration.{name} is required for this Type.")
    value = float(size["Value"])
    share = value / instances if size["Type"] == "INSTANCE_COUNT" else value / 100
    if not least <= share <= 0.5 or share <= 0:
        raise ValidationError(
            f"TrafficRoutingConfiguration.{name} must be at most 50% of the {instances} instance(s)"
            f"{f' and at least {least:.0%}' if least else ''}: it is {share:.0%}. "
            "An endpoint with one instance allows only ALL_AT_ONCE."
        )
    return share


class Routed(Protocol):
    """What a deployment needs of its endpoint."""

    sagemaker: SageMaker
    region: str

    def route(self, *routes: tuple[Fleet, float]) -> None:
        """Send new requests to these fleets, in these shares."""

    def rolling_back(self) -> None:
        """Show that the deployment is taken back."""

    def set_pending(self, pending: Params | None) -> None:
        """Show how far the deployment is."""


class Deployment:
    """One update of an endpoint.

    Parameters
    ----------
    endpoint
        It is told about every phase and routes the traffic.
    blue, green
        The fleet in service and the one that is to be.
    config
        The DeploymentConfig of the request.
    """

    def __init__(self, endpoint: Routed, blue: Fleet, green: Fleet, config: Params | None) -> None:
        self._endpoint = endpoint
        self._blue = blue
        self._green = green
        self._policy = policy_of(config, green.config)
        self._started = now()
        self._deadline = time.monotonic() + self._policy.limit

    def run(self) -> None:
        """Move all traffic to the green fleet and end the blue one.

        Raises
        ------
        RolledBackError
            The blue fleet has all traffic again.
        """
        try:
            self._show("Creating", "Creating the new fleet.")
            self._green.start()
            self._check_alarms()
            self._shift()
        except JobError as error:
            self._roll_back(str(error))
        except Exception as error:
            log.exception("deployment of %s", self._green.config_name)
            self._roll_back(f"InternalServerError: {error!r}")
        self._show("Deleting", "Terminating the old fleet.")
        self._blue.stop()

    def _shift(self) -> None:
        policy = self._policy
        for share in policy.steps:
            final = share >= 1.0
            self._show("ActivatingTraffic", f"Shifting {share:.0%} of the traffic to the new fleet.")
            if final:
                self._endpoint.route((self._green, 1.0))
            else:
                self._endpoint.route((self._green, share), (self._blue, 1.0 - share))
            wait = policy.termination_wait if final else policy.wait
            name = "TerminationWaitInSeconds" if final else "WaitIntervalInSeconds"
            self._show("Baking", f"Baking for {wait:g} seconds ({name}) with {share:.0%} of the traffic.")
            self._bake(wait)

    def _bake(self, wait: float) -> None:
        until = time.monotonic() + wait
        while True:
            self._check_alarms()
            if time.monotonic() > self._deadline:
                raise JobError(
                    f"The deployment exceeded MaximumExecutionTimeoutInSeconds ({self._policy.limit:g})."
                )
            left = until - time.monotonic()
            if left <= 0:
                return
            self._endpoint.sagemaker.aws.stopping.wait(min(left, _ALARM_POLL_SECONDS))

    def _check_alarms(self) -> None:
        names = self._policy.alarms
        if not names:
            return
        client = self._endpoint.sagemaker.aws.client("cloudwatch", self._endpoint.region)
        found = client.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
        alarms: list[Any] = [*found.get("MetricAlarms", []), *found.get("CompositeAlarms", [])]
        missing = sorted(set(names) - {alarm["AlarmName"] for alarm in alarms})
        if missing:
            raise JobError(f"The alarm(s) {', '.join(missing)} of AutoRollbackConfiguration do not exist.")
        firing = sorted(alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM")
        if firing:
            raise JobError(f"One or more alarms are in ALARM state: {', '.join(firing)}.")

    def _roll_back(self, reason: str) -> None:
        self._endpoint.rolling_back()
        self._endpoint.route((self._blue, 1.0))
        self._green.stop()
        raise RolledBackError(
            f"The deployment of the endpoint configuration {self._green.config_name} was rolled back to "
            f"{self._blue.config_name}: {reason}"
        )

    def _show(self, status: str, message: str) -> None:
        self._endpoint.set_pending(
            {
                "EndpointConfigName": self._green.config_name,
                "ProductionVariants": self._green.pending_summary(status, message, now()),
                "StartTime": self._started,
            }
        )
