"""S3 and SageMaker's registry in a few lines: moto's take ten times as long, thousands of plays use both."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import datetime
from typing import Any

from botocore.response import StreamingBody

from tests.faults.hook import Refused

Json = dict[str, Any]


class Bucket:
    """The data bucket: objects with versions, and the conditional write."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._objects: dict[str, list[tuple[bytes, datetime]]] = {}

    def operations(self) -> dict[tuple[str, str], Callable[[Json], Json]]:
        """Return what answers in S3's place."""
        named = {
            "CreateBucket": lambda _: {},
            "PutBucketVersioning": lambda _: {},
            "PutObject": self._put,
            "GetObject": self._get,
            "HeadObject": self._get,
            "ListObjectsV2": self._list,
        }
        return {("s3", name): operation for name, operation in named.items()}

    def forget(self, *prefixes: str) -> None:
        """Delete whatever begins with one of the prefixes."""
        for key in [key for key in self._objects if key.startswith(prefixes)]:
            del self._objects[key]

    def _put(self, request: Json) -> Json:
        versions = self._objects.get(request["Key"], [])
        if versions and request.get("IfNoneMatch") == "*":
            raise Refused("PreconditionFailed", "the key exists", 412)
        body = request["Body"]
        content = body if isinstance(body, bytes) else body.read()
        if not isinstance(body, bytes):
            body.seek(0)
        self._objects[request["Key"]] = [*versions, (content, self._now())]
        return {"ETag": _etag(content), "VersionId": str(len(versions) + 1)}

    def _get(self, request: Json) -> Json:
        versions = self._objects.get(request["Key"], [])
        number = int(request.get("VersionId", len(versions)))
        if not 0 < number <= len(versions):
            raise Refused("NoSuchKey", request["Key"], 404)
        content, moment = versions[number - 1]
        return {
            "Body": StreamingBody(io.BytesIO(content), len(content)),
            "ContentLength": len(content),
            "LastModified": moment,
            "ETag": _etag(content),
            "VersionId": str(number),
        }

    def _list(self, request: Json) -> Json:
        found = sorted(key for key in self._objects if key.startswith(request["Prefix"]))
        contents = []
        for key in found:
            content, moment = self._objects[key][-1]
            contents.append(
                {"Key": key, "ETag": _etag(content), "Size": len(content), "LastModified": moment}
            )
        return {"Contents": contents, "KeyCount": len(contents), "IsTruncated": False}


class Registry:
    """Packages, models, endpoint configurations and processing jobs."""

    def __init__(self, now: Callable[[], datetime], group: str) -> None:
        self._now = now
        self._prefix = f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{group}"
        self._packages: dict[str, Json] = {}
        self._named: dict[tuple[str, str], Json] = {}

    def operations(self) -> dict[tuple[str, str], Callable[[Json], Json]]:
        """Return what answers in SageMaker's place."""
        named = {
            "CreatePipeline": lambda _: {},
            "CreateModelPackageGroup": lambda _: {},
            "CreateModelPackage": self._register,
            "DescribeModelPackage": self._describe,
            "UpdateModelPackage": self._update,
            "ListModelPackages": self._list,
            "CreateModel": lambda request: self._create("ModelName", request),
            "DescribeModel": lambda request: self._look("ModelName", request),
            "CreateEndpointConfig": lambda request: self._create("EndpointConfigName", request),
            "DescribeEndpointConfig": lambda request: self._look("EndpointConfigName", request),
            "CreateProcessingJob": lambda request: self._create("ProcessingJobName", request),
            "DescribeProcessingJob": self._job,
        }
        return {("sagemaker", name): operation for name, operation in named.items()}

    def approved(self) -> list[str]:
        """Return the packages that could be served."""
        return [arn for arn, p in self._packages.items() if p["ModelApprovalStatus"] == "Approved"]

    def rewrite(self, arn: str, **members: Any) -> None:
        """Change what a package says of itself, by somebody else's hand."""
        self._packages[arn].update(members)

    def _register(self, request: Json) -> Json:
        version = len(self._packages) + 1
        arn = f"{self._prefix}/{version}"
        self._packages[arn] = {
            **request,
            "ModelPackageArn": arn,
            "ModelPackageVersion": version,
            "CreationTime": self._now(),
        }
        return {"ModelPackageArn": arn}

    def _package(self, arn: str) -> Json:
        if arn not in self._packages:
            raise Refused("ValidationException", f"{arn} does not exist")
        return self._packages[arn]

    def _describe(self, request: Json) -> Json:
        return dict(self._package(request["ModelPackageName"]))

    def _update(self, request: Json) -> Json:
        self._package(request["ModelPackageArn"]).update(request)
        return {"ModelPackageArn": request["ModelPackageArn"]}

    def _list(self, request: Json) -> Json:
        wanted = request.get("ModelApprovalStatus")
        found = [p for p in self._packages.values() if wanted in (None, p["ModelApprovalStatus"])]
        return {"ModelPackageSummaryList": list(reversed(found))}

    def _create(self, kind: str, request: Json) -> Json:
        if (kind, request[kind]) in self._named:
            raise Refused("ValidationException", f"Cannot create already existing {request[kind]}")
        self._named[kind, request[kind]] = dict(request)
        return {}

    def _look(self, kind: str, request: Json) -> Json:
        found = self._named.get((kind, request[kind]))
        if found is None:
            raise Refused("ValidationException", f"Could not find {request[kind]}")
        return dict(found)

    def _job(self, request: Json) -> Json:
        return {**self._look("ProcessingJobName", request), "ProcessingJobStatus": "InProgress"}


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
