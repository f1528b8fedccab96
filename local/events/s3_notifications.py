"""What happens in a bucket, told to EventBridge and to the bucket's own notification targets."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

from flask import after_this_request, has_request_context, request
from moto.core.responses import ActionResult
from moto.s3 import notifications
from moto.s3.models import S3Backend
from moto.s3.responses import S3Response

from local.context import LocalAws
from local.events import targets
from local.events.bus import EventBuses
from local.events.delivery import Deliverer, Job, RetryPolicy

_REASONS = {
    "s3:ObjectCreated:Put": "PutObject",
    "s3:ObjectCreated:Post": "POST Object",
    "s3:ObjectCreated:Copy": "CopyObject",
    "s3:ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "s3:ObjectRemoved:Delete": "DeleteObject",
    "s3:ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}
_DELETIONS = {
    "s3:ObjectRemoved:Delete": "Permanently Deleted",
    "s3:ObjectRemoved:DeleteMarkerCreated": "Delete Marker Created",
}
_PART_OF_ANOTHER_REQUEST = {
    "s3:ObjectTagging:Put": "tagging",
    "s3:ObjectTagging:Delete": "tagging",
    "s3:ObjectAcl:Put": "acl",
}
"""moto tells of these for a PutObject with tags or an ACL too; S3 only for the request of that name."""


class BucketNotifications:
    """Hooks moto's S3 so that buckets publish the events that S3 would."""

    def __init__(self, aws: LocalAws, buses: EventBuses, deliverer: Deliverer) -> None:
        self._aws = aws
        self._buses = buses
        self._deliverer = deliverer
        self._quiet = threading.local()
        self._sequence = itertools.count(time.time_ns() // 1000)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Drop what moto publishes inside one operation that S3 publishes as a whole."""
        self._quiet.depth = getattr(self._quiet, "depth", 0) + 1
        try:
            yield
        finally:
            self._quiet.depth -= 1

    def install(self) -> None:
        """Replace moto's sending and correct the operations that publish wrongly."""
        complete, delete = S3Backend.complete_multipart_upload, S3Backend.delete_object
        get_configuration = S3Response.get_bucket_notification
        hooks = self

        def complete_multipart_upload(backend: Any, bucket_name: str, *args: Any, **kwargs: Any) -> Any:
            with hooks._silence():
                key = complete(backend, bucket_name, *args, **kwargs)
            if key is not None:
                bucket = backend.get_bucket(bucket_name)
                hooks.announce(backend.account_id, "s3:ObjectCreated:CompleteMultipartUpload", bucket, key)
            return key

        def delete_object(
            backend: Any, bucket_name: str, key_name: str, version_id: str | None = None, bypass: bool = False
        ) -> Any:
            bucket = backend.get_bucket(bucket_name)
            versions = bucket.keys.getlist(key_name, [])
            gone = next((key for key in versions if str(key.version_id) == str(version_id)), None)
            if version_id is None:
                gone = versions[-1] if versions else None
            with hooks._silence():
                existed, meta = delete(backend, bucket_name, key_name, version_id=version_id, bypass=bypass)
            if existed and gone is not None:
                marker = bucket.is_versioned and version_id is None
                name = "s3:ObjectRemoved:DeleteMarkerCreated" if marker else "s3:ObjectRemoved:Delete"
                hooks.announce(backend.account_id, name, bucket, gone, version=meta.get("version-id"))
            return existed, meta

        def get_bucket_notification(response: Any) -> Any:
            answer = get_configuration(response)
            configuration = response.backend.get_bucket_notification_configuration(response.bucket_name)
            if configuration is None or configuration.event_bridge is None:
                return answer
            return response.serialized(ActionResult(_with_event_bridge(configuration)))

        S3Backend.complete_multipart_upload = complete_multipart_upload
        S3Backend.delete_object = delete_object
        S3Response.get_bucket_notification = get_bucket_notification
        notifications.send_event = self._from_moto

    def _from_moto(self, account_id: str, event_name: Any, bucket: Any, key: Any) -> None:
        name = str(getattr(event_name, "value", event_name))
        subresource = _PART_OF_ANOTHER_REQUEST.get(name)
        if subresource and not (has_request_context() and subresource in request.args):
            return
        if getattr(self._quiet, "depth", 0) == 0:
            self.announce(account_id, name, bucket, key)

    def announce(self, account: str, name: str, bucket: Any, key: Any, version: str | None = None) -> None:
        """Tell everyone whom the bucket's configuration names, once the request is done."""
        configuration = bucket.notification_configuration
        if configuration is None:
            return
        sequencer = f"{next(self._sequence):X}"
        address = request.remote_addr if has_request_context() and request.remote_addr else "127.0.0.1"
        change = _Change(account, name, bucket, key, version, sequencer, address)

        def publish() -> None:
            if configuration.event_bridge is not None:
                event = self._buses.new_event(
                    "aws.s3",
                    notifications._detail_type(name),
                    [bucket.arn],
                    change.detail(),
                    region=bucket.region_name,
                    account=account,
                )
                self._buses.publish(event, "default", account=account, region=bucket.region_name)
            for group in (configuration.cloud_function, configuration.queue, configuration.topic):
                for notification in group:
                    if notification.matches(name, key.name):
                        self._deliverer.start(self._job(change, notification))

        _when_request_ends(publish)

    def _job(self, change: _Change, notification: Any) -> Job:
        body = json.dumps(change.record(notification.id))
        payload = targets.Payload(body, key=change.request_id, subject="Amazon S3 Notification")
        target = {"Arn": notification.arn}
        where = f"{change.bucket.name}/{change.key.name}"
        return Job(
            what=f"S3 notification {notification.id} about {where} to {notification.arn}",
            attempt=lambda _: targets.send(self._aws, target, payload),
            policy=RetryPolicy(),
            dead_letter_arn=None,
            dead_letter=lambda _: (body, {}),
        )


class _Change:
    """One change of one object, in the shapes in which S3 tells of it."""

    def __init__(
        self,
        account: str,
        name: str,
        bucket: Any,
        key: Any,
        version: str | None,
        sequencer: str,
        address: str,
    ) -> None:
        self.account = account
        self.name = name
        self.bucket = bucket
        self.key = key
        self.version = version or (key.version_id if bucket.is_versioned else None)
        self.sequencer = sequencer
        self.address = address
        self.request_id = uuid.uuid4().hex[:16].upper()
        self.time = datetime.now(UTC)

    @property
    def _etag(self) -> str:
        return str(getattr(self.key, "etag", "") or "").replace('"', "")

    def detail(self) -> dict[str, Any]:
        """Return the ``detail`` of the EventBridge event."""
        deletion = _DELETIONS.get(self.name)
        described: dict[str, Any] = {"key": self.key.name}
        if not deletion:
            described["size"] = self.key.size
        if self._etag:
            described["etag"] = self._etag
        if self.version and self.version != "null":
            described["version-id"] = self.version
        described["sequencer"] = self.sequencer
        detail: dict[str, Any] = {
            "version": "0",
            "event-version": "1.2",
            "bucket": {"name": self.bucket.name},
            "object": described,
            "request-id": self.request_id,
            "requester": self.account,
            "source-ip-address": self.address,
        }
        if self.name in _REASONS:
            detail["reason"] = _REASONS[self.name]
        if deletion:
            detail["deletion-type"] = deletion
        return detail

    def record(self, configuration_id: str) -> dict[str, Any]:
        """Return the message of a bucket's own notification."""
        described: dict[str, Any] = {"key": quote_plus(self.key.name, safe="/")}
        if self.name not in _DELETIONS:
            described |= {"size": self.key.size, "eTag": self._etag}
        if self.version and self.version != "null":
            described["versionId"] = self.version
        described["sequencer"] = self.sequencer
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self.bucket.region_name,
            "eventTime": self.time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self.time.microsecond // 1000:03d}Z",
            "eventName": self.name.removeprefix("s3:"),
            "userIdentity": {"principalId": f"AWS:{self.account}"},
            "requestParameters": {"sourceIPAddress": self.address},
            "responseElements": {"x-amz-request-id": self.request_id, "x-amz-id-2": self.request_id},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": configuration_id,
                "bucket": {
                    "name": self.bucket.name,
                    "ownerIdentity": {"principalId": self.account},
                    "arn": self.bucket.arn,
                },
                "object": described,
            },
        }
        return {"Records": [record]}


def _when_request_ends(action: Callable[[], None]) -> None:
    if not has_request_context():
        action()
        return

    def run(response: Any) -> Any:
        action()
        return response

    after_this_request(run)


def _with_event_bridge(configuration: Any) -> dict[str, Any]:
    def described(item: Any, arn_name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"Id": item.id, arn_name: item.arn, "Events": item.events}
        if item.filters:
            entry["Filter"] = {"Key": {"FilterRules": item.filters["S3Key"]["FilterRule"]}}
        return entry

    return {
        "TopicConfigurations": [described(item, "TopicArn") for item in configuration.topic],
        "QueueConfigurations": [described(item, "QueueArn") for item in configuration.queue],
        "LambdaFunctionConfigurations": [
            described(item, "LambdaFunctionArn") for item in configuration.cloud_function
        ],
        "EventBridgeConfiguration": {},
    }
