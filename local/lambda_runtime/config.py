"""A function as one invocation sees it: taken from moto's record once, immutable from then on."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import Any

from local.lambda_runtime.errors import ResourceNotFoundError


@dataclass(frozen=True)
class FunctionConfig:
    """What a worker needs to know about its function.

    Attributes
    ----------
    arn
        Unqualified ARN for ``$LATEST``, else qualified with the version.
    timeout, memory_size
        Seconds and megabytes.
    layers
        ``(ARN, SHA-256)`` in the order in which they are merged.
    """

    name: str
    version: str
    arn: str
    role: str
    region: str
    account_id: str
    handler: str
    runtime: str
    timeout: float
    memory_size: int
    environment: tuple[tuple[str, str], ...]
    code_digest: str
    layers: tuple[tuple[str, str], ...]
    log_group: str
    log_format: str
    application_log_level: str
    system_log_level: str
    tracing: str

    @classmethod
    def of(cls, function: Any) -> FunctionConfig:
        """Read moto's ``LambdaFunction``."""
        logging_config = getattr(function, "logging_config", None) or {}
        return cls(
            name=function.function_name,
            version=str(function.version),
            arn=function.function_arn,
            role=function.role,
            region=function.region,
            account_id=function.account_id,
            handler=function.handler,
            runtime=function.run_time,
            timeout=float(function.timeout),
            memory_size=int(function.memory_size),
            environment=tuple(sorted((k, str(v)) for k, v in (function.environment_vars or {}).items())),
            code_digest=function.code_digest,
            layers=tuple(
                (layer["Arn"], layer_version(function, layer["Arn"]).code_digest) for layer in function.layers
            ),
            log_group=logging_config.get("LogGroup") or function.logs_group_name,
            log_format=logging_config.get("LogFormat", "Text"),
            application_log_level=logging_config.get("ApplicationLogLevel", ""),
            system_log_level=logging_config.get("SystemLogLevel", "INFO"),
            tracing=(function.tracing_config or {}).get("Mode", "PassThrough"),
        )

    @property
    def fingerprint(self) -> str:
        """Changes when, and only when, a worker of the old configuration must not serve the new one."""
        return hashlib.sha256(json.dumps([str(value) for value in vars(self).values()]).encode()).hexdigest()

    @property
    def qualified_arn(self) -> str:
        """The ARN with the version, as destination records name it."""
        return self.arn if self.arn.endswith(f":{self.version}") else f"{self.arn}:{self.version}"

    @property
    def python_version(self) -> str:
        """Version in the runtime's name, ``3.13``: where its layers keep their packages."""
        return self.runtime.removeprefix("python") or f"{sys.version_info.major}.{sys.version_info.minor}"


def layer_version(function: Any, arn: str) -> Any:
    """Return moto's ``LayerVersion`` of a layer that ``function`` names.

    Raises
    ------
    ResourceNotFoundError
        When the version was deleted meanwhile.
    """
    from moto.awslambda.utils import get_backend

    version = get_backend(function.account_id, function.region).layers_versions_by_arn(arn)
    if version is None:
        raise ResourceNotFoundError(
            f"Layer version {arn} of function {function.function_name} does not exist."
        )
    return version
