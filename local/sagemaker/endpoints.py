"""Endpoints: traffic, life cycle and API; the way from one fleet to the next is in deployments."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any

from local.sagemaker.deployments import Deployment, RolledBackError, policy_of
from local.sagemaker.errors import JobError, UnsupportedOperation, ValidationError
from local.sagemaker.fleets import Fleet, Variant
from local.sagemaker.models import container_of, endpoint_config
from local.sagemaker.operations import Call, operation, page
from local.sagemaker.publisher import with_millis
from local.sagemaker.state import Params, Record, SageMaker, now, tags_of

log = logging.getLogger("local.sagemaker")

STATE_EVENT = "SageMaker Endpoint State Change"
DEPLOYMENT_EVENT = "SageMaker Endpoint Deployment State Change"
EVENT_STATUS = {
    "Creating": "CREATING",
    "Updating": "UPDATING",
    "InService": "IN_SERVICE",
    "RollingBack": "ROLLING_BACK",
    "Deleting": "DELETING",
    "Deleted": "DELETED",
    "Failed": "FAILED",
}
SERVING = ("InService", "Updating", "RollingBack")


class Endpoint:
    """One endpoint.

    Parameters
    ----------
    sagemaker, region, name
        Where it is.
    tags
        Its tags.
    """

    def __init__(self, sagemaker: SageMaker, region: str, name: str, tags: dict[str, str]) -> None:
        self.sagemaker = sagemaker
        self.region = region
        self.name = name
        self.arn = sagemaker.arn(region, f"endpoint/{name}")
        self.tags = tags
        self.created = self.modified = now()
        self.status = "Creating"
        self.failure_reason: str | None = None
        self.last_deployment_config: Params | None = None
        self.config_name = ""
        self._fleet: Fleet | None = None
        self._routes: tuple[tuple[Fleet, float], ...] = ()
        self._pending: Params | None = None
        self._lock = threading.Lock()

    # -- traffic -------------------------------------------------------------------------------
    def acquire(self, target: str | None) -> tuple[Fleet, Variant] | None:
        """Choose who answers a request and count the request in, in one step with the switch.

        Returns None when the target variant does not exist.
        """
        with self._lock:
            fleet = self._routes[0][0]
            if len(self._routes) > 1:
                point = random.random()  # noqa: S311 - traffic splitting
                for candidate, share in self._routes:
                    fleet = candidate
                    point -= share
                    if point < 0:
                        break
            variant = fleet.choose(target)
            if variant is None:
                return None
            variant.container.acquire()
            return fleet, variant

    @property
    def serves(self) -> bool:
        """Whether requests are taken."""
        return self.status in SERVING and bool(self._routes)

    def route(self, *routes: tuple[Fleet, float]) -> None:
        """Send new requests to these fleets, in these shares."""
        with self._lock:
            self._routes = routes

    # -- life cycle ----------------------------------------------------------------------------
    def create(self, fleet: Fleet) -> None:
        """Start the first fleet in the background."""
        self.config_name = fleet.config_name
        self._publish_state()
        self.sagemaker.spawn(self._create, fleet, name=f"endpoint-{self.name}")

    def _create(self, fleet: Fleet) -> None:
        try:
            fleet.start()
        except Exception as error:
            self._fail(error)
            return
        self._fleet = fleet
        self.route((fleet, 1.0))
        self._enter("InService")

    def update(self, fleet: Fleet, config: Params | None) -> None:
        """Go to another fleet in the background."""
        deployment = Deployment(self, self._current(), fleet, config)
        self.last_deployment_config = config
        self._enter("Updating")
        self.sagemaker.spawn(self._update, deployment, fleet, name=f"endpoint-{self.name}")

    def _update(self, deployment: Deployment, fleet: Fleet) -> None:
        try:
            deployment.run()
        except RolledBackError as error:
            self.failure_reason = str(error)
            self.set_pending(None)
            self._enter("InService")
            return
        except Exception as error:
            self.set_pending(None)
            self._fail(error)
            return
        self._fleet = fleet
        self.config_name = fleet.config_name
        self.set_pending(None)
        self._enter("InService")

    def delete(self) -> None:
        """Stop serving and disappear."""
        self._enter("Deleting")
        self.sagemaker.spawn(self._delete, name=f"endpoint-{self.name}")

    def _delete(self) -> None:
        self.route()
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.stop()
        state = self.sagemaker.region(self.region)
        with state.lock:
            if state.held(Endpoint).get(self.name) is self:
                del state.held(Endpoint)[self.name]
        self._enter("Deleted")

    def rolling_back(self) -> None:
        """Show that a deployment is taken back."""
        self._enter("RollingBack")

    def set_pending(self, pending: Params | None) -> None:
        """Show how far a deployment is, and tell the bus."""
        self._pending = pending
        if pending is not None:
            self.modified = now()
            detail = {**self._event_detail(), "PendingDeploymentSummary": with_millis(pending)}
            self.sagemaker.publisher.publish(self.region, DEPLOYMENT_EVENT, [self.arn], detail)

    def retained(self) -> dict[str, tuple[float, int]]:
        """Return weight and instance count of every variant."""
        if self._fleet is None:
            return {}
        return {v.name: (v.weight, v.instances) for v in self._fleet.variants.values()}

    def _current(self) -> Fleet:
        if self._fleet is None:
            raise ValidationError(f"Endpoint {self.name} has no fleet to update.")
        return self._fleet

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, JobError) and not self.sagemaker.aws.stopping.is_set():
            log.exception("endpoint %s", self.name)
        internal = "" if isinstance(error, JobError) else "InternalServerError: "
        self.failure_reason = f"{internal}{error}"
        self._enter("Failed")

    def _enter(self, status: str) -> None:
        self.status = status
        self.modified = now()
        self._publish_state()

    # -- description ---------------------------------------------------------------------------
    def describe(self) -> Params:
        """Return DescribeEndpoint's answer."""
        fleet = self._fleet
        capture = fleet.capture_config if fleet else None
        body: Params = {
            "EndpointName": self.name,
            "EndpointArn": self.arn,
            "EndpointConfigName": self.config_name,
            "EndpointStatus": self.status,
            "FailureReason": self.failure_reason,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "LastDeploymentConfig": self.last_deployment_config,
            "PendingDeploymentSummary": self._pending,
        }
        if fleet is not None:
            body["ProductionVariants"] = [variant.summary() for variant in fleet.variants.values()]
        if capture:
            enabled = bool(capture.get("EnableCapture", True))
            body["DataCaptureConfig"] = {
                "EnableCapture": enabled,
                "CaptureStatus": "Started" if enabled else "Stopped",
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
                "KmsKeyId": capture.get("KmsKeyId", ""),
            }
        return {key: value for key, value in body.items() if value is not None}

    def _event_detail(self) -> Params:
        detail: Params = {
            "EndpointName": self.name,
            "EndpointArn": self.arn,
            "EndpointConfigName": self.config_name,
            "ProductionVariants": self.describe().get("ProductionVariants", []),
            "EndpointStatus": EVENT_STATUS[self.status],
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "Tags": dict(self.tags),
        }
        if self.failure_reason:
            detail["FailureReason"] = self.failure_reason
        return dict(with_millis(detail))

    def _publish_state(self) -> None:
        self.sagemaker.publisher.publish(self.region, STATE_EVENT, [self.arn], self._event_detail())


@operation("CreateEndpoint")
def create_endpoint(call: Call) -> Params:
    """CreateEndpoint."""
    name = call["EndpointName"]
    with call.state.lock:
        config = endpoint_config(call.state, call["EndpointConfigName"])
        if name in call.state.held(Endpoint):
            arn = call.state.held(Endpoint)[name].arn
            raise ValidationError(f'Cannot create already existing endpoint "{arn}".')
        fleet = _new_fleet(call, name, config, {})
        endpoint = Endpoint(call.sagemaker, call.region, name, tags_of(call.params))
        call.state.held(Endpoint)[name] = endpoint
    endpoint.create(fleet)
    return {"EndpointArn": endpoint.arn}


@operation("UpdateEndpoint")
def update_endpoint(call: Call) -> Params:
    """UpdateEndpoint: blue/green to the fleet of another configuration."""
    with call.state.lock:
        endpoint = _endpoint(call)
        config = endpoint_config(call.state, call["EndpointConfigName"])
        if call.get("ExcludeRetainedVariantProperties"):
            raise UnsupportedOperation(
                "ExcludeRetainedVariantProperties is not supported by the embedded AWS."
            )
        deployment = call.get("DeploymentConfig")
        if deployment is None and call.get("RetainDeploymentConfig"):
            deployment = endpoint.last_deployment_config
        policy_of(deployment, config.body)
        if endpoint.status != "InService":
            raise ValidationError(
                f'Cannot update in-progress endpoint "{endpoint.arn}".'
                if endpoint.status != "Failed"
                else f'Cannot update failed endpoint "{endpoint.arn}": delete it and create it again.'
            )
        if endpoint.config_name == config.body["EndpointConfigName"]:
            raise ValidationError(
                f'Cannot update endpoint "{endpoint.arn}" with the configuration that it already has: '
                f"{endpoint.config_name}."
            )
        retained = endpoint.retained() if call.get("RetainAllVariantProperties") else {}
        fleet = _new_fleet(call, endpoint.name, config, retained)
        endpoint.failure_reason = None
        endpoint.update(fleet, deployment)
    return {"EndpointArn": endpoint.arn}


@operation("DescribeEndpoint")
def describe_endpoint(call: Call) -> Params:
    """DescribeEndpoint."""
    return _endpoint(call).describe()


@operation("DeleteEndpoint")
def delete_endpoint(call: Call) -> Params:
    """DeleteEndpoint."""
    with call.state.lock:
        endpoint = _endpoint(call)
        if endpoint.status not in ("InService", "Failed"):
            raise ValidationError(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        endpoint.delete()
    return {}


@operation("ListEndpoints")
def list_endpoints(call: Call) -> Params:
    """ListEndpoints."""
    items = [endpoint.describe() for endpoint in list(call.state.held(Endpoint).values())]
    wanted = call.get("StatusEquals")
    if wanted is not None:
        items = [item for item in items if item["EndpointStatus"] == wanted]
    return page(
        call,
        items,
        result="Endpoints",
        sort={
            "Name": lambda item: item["EndpointName"],
            "CreationTime": lambda item: item["CreationTime"],
            "Status": lambda item: item["EndpointStatus"],
        },
        default_sort="CreationTime",
        name_of=lambda item: str(item["EndpointName"]),
    )


def _endpoint(call: Call) -> Endpoint:
    endpoint = call.state.held(Endpoint).get(call["EndpointName"])
    if endpoint is None:
        arn = call.sagemaker.arn(call.region, f"endpoint/{call['EndpointName']}")
        raise ValidationError(f'Could not find endpoint "{arn}".')
    return endpoint


def _new_fleet(call: Call, name: str, config: Record, retained: dict[str, tuple[float, int]]) -> Fleet:
    models: list[Any] = [variant["ModelName"] for variant in config.body["ProductionVariants"]]
    definitions = {model: container_of(call.state, model) for model in models}
    return Fleet(call.sagemaker, call.region, name, config.body, definitions, retained)
