"""The endpoint, its configurations and its models.

SageMaker answers a look-up of something that does not exist, and a change during another change, with the
same ValidationException: what it means is found by describing, not by reading the message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import AwsRequestFailed
from truthloop.serving.deployment import EndpointState, Target, endpoint_config
from truthloop.settings import DeploymentSettings

_REFUSED = frozenset({"ValidationException", "ResourceInUse", "ResourceInUseException", "ConflictException"})
_MISSING = frozenset({"ValidationException", "ResourceNotFound", "ResourceNotFoundException"})


class SageMakerEndpoint:
    """Implements ``ports.Endpoint``."""

    def __init__(self, client: Any, runtime: Callable[[], Any], name: str) -> None:
        self._client = client
        self._runtime = runtime
        self._name = name

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self._name

    def state(self) -> EndpointState | None:
        """Describe the endpoint; None when there is none."""
        answer = self._find("describe_endpoint", EndpointName=self._name)
        if answer is None:
            return None
        pending = answer.get("PendingDeploymentSummary") or {}
        return EndpointState(
            status=str(answer["EndpointStatus"]),
            config_name=str(answer.get("EndpointConfigName") or ""),
            pending_config_name=pending.get("EndpointConfigName"),
            last_modified=answer["LastModifiedTime"],
            failure_reason=str(answer.get("FailureReason") or ""),
        )

    def served_package_arn(self, config_name: str) -> str | None:
        """Return the package behind a configuration."""
        config = self._find("describe_endpoint_config", EndpointConfigName=config_name)
        variants = (config or {}).get("ProductionVariants") or []
        if not variants or not variants[0].get("ModelName"):
            return None
        model = self._find("describe_model", ModelName=variants[0]["ModelName"]) or {}
        containers = [model.get("PrimaryContainer") or {}, *(model.get("Containers") or [])]
        return next((str(c["ModelPackageName"]) for c in containers if c.get("ModelPackageName")), None)

    def ensure_model(self, target: Target, role_arn: str) -> None:
        """Create the model unless it exists."""
        name = target.model_name
        self._ensure(
            ("describe_model", {"ModelName": name}),
            "create_model",
            {
                "ModelName": name,
                "PrimaryContainer": {"ModelPackageName": target.package.arn},
                "ExecutionRoleArn": role_arn,
                # It decodes pictures of strangers and needs nobody: SageMaker brings model and requests.
                "EnableNetworkIsolation": True,
            },
        )

    def ensure_config(self, target: Target, settings: DeploymentSettings, bucket: str) -> None:
        """Create the endpoint configuration unless it exists."""
        self._ensure(
            ("describe_endpoint_config", {"EndpointConfigName": target.config_name}),
            "create_endpoint_config",
            endpoint_config(target, settings, bucket),
        )

    def create(self, config_name: str) -> None:
        """Create the endpoint."""
        with translated():
            self._client.create_endpoint(EndpointName=self._name, EndpointConfigName=config_name)

    def update(self, config_name: str, deployment_config: Mapping[str, Any]) -> None:
        """Update the endpoint."""
        with translated():
            self._client.update_endpoint(
                EndpointName=self._name,
                EndpointConfigName=config_name,
                DeploymentConfig=dict(deployment_config),
            )

    def delete(self) -> None:
        """Ask for the deletion; a refusal means that it is gone or being changed, and the next look tells."""
        try:
            with translated():
                self._client.delete_endpoint(EndpointName=self._name)
        except AwsRequestFailed as error:
            if error.code not in _REFUSED:
                raise

    def invoke(self, image: bytes, content_type: str, inference_id: str) -> bytes:
        """Ask the endpoint about one image."""
        with translated():
            answer = self._runtime().invoke_endpoint(
                EndpointName=self._name,
                ContentType=content_type,
                Accept="application/json",
                Body=image,
                InferenceId=inference_id,
            )
            return bytes(answer["Body"].read())

    def _find(self, operation: str, **request: Any) -> dict[str, Any] | None:
        try:
            with translated():
                return dict(getattr(self._client, operation)(**request))
        except AwsRequestFailed as error:
            if error.code in _MISSING:
                return None
            raise

    def _ensure(self, look: tuple[str, dict[str, Any]], create: str, request: Mapping[str, Any]) -> None:
        operation, key = look
        if self._find(operation, **key) is not None:
            return
        try:
            with translated():
                getattr(self._client, create)(**request)
        except AwsRequestFailed:
            # A concurrent attempt may have created it between the look and the call.
            if self._find(operation, **key) is None:
                raise
