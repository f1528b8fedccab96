"""Make moto's S3 answer as S3 does: the HTTP status of its errors, bucket names, continuation tokens.

botocore's model names hardly any error of S3, so moto answers every other one with 400. Clients decide
by the status: 412 is a lost race, 409 a conflict.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core import serialize
from moto.core.errors import ErrorShape
from moto.s3.exceptions import InvalidBucketName, InvalidContinuationToken
from moto.s3.models import S3Backend

from local.context import LocalAws

STATUS = {
    "AccessDenied": 403,
    "AccessForbidden": 403,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "ConditionalRequestConflict": 409,
    "InvalidBucketState": 409,
    "InvalidObjectState": 403,
    "InvalidRange": 416,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchCORSConfiguration": 404,
    "NoSuchKey": 404,
    "NoSuchLifecycleConfiguration": 404,
    "NoSuchPublicAccessBlockConfiguration": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NoSuchWebsiteConfiguration": 404,
    "ObjectLockConfigurationNotFoundError": 404,
    "OperationAborted": 409,
    "OwnershipControlsNotFoundError": 404,
    "PreconditionFailed": 412,
    "ReplicationConfigurationNotFoundError": 404,
    "ServerSideEncryptionConfigurationNotFoundError": 404,
}
"""Statuses that are not 400 (Amazon S3 API reference, Error responses)."""

_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def install(aws: LocalAws) -> None:
    """Correct the statuses, and refuse what moto takes or fails on."""
    model_of = serialize.get_error_model
    create_bucket, list_objects = S3Backend.create_bucket, S3Backend.list_objects_v2

    def with_status(exception: Exception, service: Any) -> ErrorShape:
        shape = model_of(exception, service)
        status = STATUS.get(shape.error_code) if service.service_name == "s3" else None
        if status is None:
            return shape
        known: dict[str, Any] = shape._shape_model
        error = {**known.get("error", {}), "code": shape.error_code, "httpStatusCode": status}
        return ErrorShape(shape.name, {**known, "error": error}, shape._shape_resolver)

    def create(self: S3Backend, bucket_name: str, *args: Any, **kwargs: Any) -> Any:
        if not _BUCKET.fullmatch(bucket_name):
            raise InvalidBucketName
        return create_bucket(self, bucket_name, *args, **kwargs)

    def listed(self: S3Backend, **request: Any) -> Any:
        token = request["continuation_token"]
        if token and token not in self._pagination_tokens:
            raise InvalidContinuationToken
        return list_objects(self, **request)

    serialize.get_error_model = with_status
    S3Backend.create_bucket = create
    S3Backend.list_objects_v2 = listed
