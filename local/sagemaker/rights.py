"""S3 with the rights of a job's or an endpoint's role: what SageMaker moves, it moves as the role.

On AWS a role that may not read its input fails the job; here the IAM adapter judges the same calls by
the role's access key. A role that IAM does not know has no rights to judge: such calls are made as the
user's own.
"""

from __future__ import annotations

import threading
from typing import Any

import boto3
from botocore.config import Config
from moto.iam.models import iam_backends

from local.context import LocalAws
from local.lambda_runtime import identity

_clients: dict[tuple[str, str, str], Any] = {}
_lock = threading.Lock()


def s3_as(aws: LocalAws, region: str, role_arn: str) -> Any:
    """Return a cached S3 client that acts as ``role_arn``."""
    name = role_arn.rsplit("/", 1)[-1]
    roles = list(iam_backends[aws.account_id]["aws"].roles.values())
    if not any(role.name == name for role in roles):
        return aws.client("s3", region)
    key = (aws.endpoint, region, role_arn)
    with _lock:
        if key not in _clients:
            _clients[key] = boto3.session.Session().client(
                "s3",
                region_name=region,
                endpoint_url=aws.endpoint,
                aws_access_key_id=identity.access_key_for(role_arn),
                aws_secret_access_key="local",  # noqa: S106 - moto takes any
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
            )
        return _clients[key]
