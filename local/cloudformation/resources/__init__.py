"""One handler per CloudFormation resource type; what is not here cannot be deployed."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from local.cloudformation.resources.base import ResourceType

_MODULES = (
    "cloudwatch",
    "dynamodb",
    "ecr",
    "events",
    "iam",
    "kms",
    "lambda_functions",
    "logs",
    "nested",
    "s3",
    "sagemaker",
    "scheduler",
    "sns",
    "sqs",
    "ssm",
    "stepfunctions",
)


@cache
def resource_types() -> dict[str, ResourceType]:
    """Return the handler of every supported type by its name."""
    found = {}
    for module in _MODULES:
        for kind in import_module(f"{__name__}.{module}").TYPES:
            found[kind.type] = kind()
    return found
