"""Buckets tell EventBridge and their own notification targets what happens in them."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from typing import Any

import pytest

from tests.local.lambda_helpers import forwarder

ACCOUNT = "123456789012"


class Bucket:
    """A bucket with a queue behind it."""

    def __init__(self, server: Any, *, versioned: bool = False) -> None:
        self.s3, self.sqs, self.events = server.client("s3"), server.client("sqs"), server.client("events")
        self.server = server
        self.name = f"bucket-{uuid.uuid4().hex[:8]}"
        self.s3.create_bucket(Bucket=self.name)
        if versioned:
            self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        self.url = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        self.queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    def configure(self, **configuration: Any) -> None:
        self.s3.put_bucket_notification_configuration(
            Bucket=self.name, NotificationConfiguration=configuration
        )

    def route_events(self, **pattern: Any) -> None:
        self.configure(EventBridgeConfiguration={})
        bucket = {"source": ["aws.s3"], "detail": {"bucket": {"name": [self.name]}}}
        self.events.put_rule(Name=self.name, EventPattern=json.dumps(bucket | pattern))
        self.events.put_targets(Rule=self.name, Targets=[{"Id": "1", "Arn": self.queue}])

    def take(self, count: int = 1) -> list[Any]:
        found: list[Any] = []
        end = time.monotonic() + 60
        while len(found) < count and time.monotonic() < end:
            answer = self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=2, MaxNumberOfMessages=10)
            for message in answer.get("Messages", []):
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        assert len(found) == count
        return found

    def is_quiet(self) -> bool:
        return not self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=1).get("Messages")


@pytest.fixture
def bucket(server: Any) -> Bucket:
    return Bucket(server)


@pytest.fixture
def versioned(server: Any) -> Bucket:
    return Bucket(server, versioned=True)


def test_put_object_in_the_shape_of_aws(versioned: Bucket) -> None:
    versioned.route_events()
    answer = versioned.s3.put_object(
        Bucket=versioned.name, Key="in/a b.jsonl", Body=b"hello", Tagging="a=b", ACL="private"
    )
    [event] = versioned.take()
    detail = event.pop("detail")
    assert event["detail-type"] == "Object Created"
    assert event["source"] == "aws.s3"
    assert event["resources"] == [f"arn:aws:s3:::{versioned.name}"]
    described = detail.pop("object")
    assert int(described.pop("sequencer"), 16) > 0
    assert described == {
        "key": "in/a b.jsonl",
        "size": 5,
        "etag": "5d41402abc4b2a76b9719d911017c592",
        "version-id": answer["VersionId"],
    }
    assert detail.pop("request-id")
    assert detail == {
        "version": "0",
        "event-version": "1.2",
        "bucket": {"name": versioned.name},
        "requester": ACCOUNT,
        "source-ip-address": "127.0.0.1",
        "reason": "PutObject",
    }
    assert versioned.is_quiet()  # tags and ACL came with the object: no events of their own


def test_without_versions_there_is_no_version_id_and_sequencers_rise(bucket: Bucket) -> None:
    bucket.route_events()
    for _ in range(3):
        bucket.s3.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    events = bucket.take(3)
    assert all("version-id" not in event["detail"]["object"] for event in events)
    assert len({int(event["detail"]["object"]["sequencer"], 16) for event in events}) == 3


def test_copy_multipart_and_form_upload_have_their_reasons(bucket: Bucket) -> None:
    s3 = bucket.s3
    s3.put_object(Bucket=bucket.name, Key="source", Body=b"x")
    bucket.route_events()
    s3.copy_object(Bucket=bucket.name, Key="copy", CopySource=f"{bucket.name}/source")
    upload = s3.create_multipart_upload(Bucket=bucket.name, Key="large")["UploadId"]
    part = s3.upload_part(Bucket=bucket.name, Key="large", UploadId=upload, PartNumber=1, Body=b"whole")
    s3.complete_multipart_upload(
        Bucket=bucket.name,
        Key="large",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    _form_upload(bucket, "form", b"data")
    reasons = {event["detail"]["object"]["key"]: event["detail"]["reason"] for event in bucket.take(3)}
    assert reasons == {"copy": "CopyObject", "large": "CompleteMultipartUpload", "form": "POST Object"}
    assert bucket.is_quiet()


def _form_upload(bucket: Bucket, key: str, content: bytes) -> None:
    form = bucket.s3.generate_presigned_post(bucket.name, key)
    boundary = "limit"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form["fields"].items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        form["url"], body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status in (200, 204)


def test_deletions_say_how(versioned: Bucket) -> None:
    first = versioned.s3.put_object(Bucket=versioned.name, Key="k", Body=b"x")["VersionId"]
    versioned.route_events(**{"detail-type": ["Object Deleted"]})
    marker = versioned.s3.delete_object(Bucket=versioned.name, Key="k")["VersionId"]
    [event] = versioned.take()
    assert event["detail"]["deletion-type"] == "Delete Marker Created"
    assert event["detail"]["object"]["version-id"] == marker
    assert event["detail"]["reason"] == "DeleteObject"
    versioned.s3.delete_object(Bucket=versioned.name, Key="k", VersionId=first)
    [event] = versioned.take()
    assert event["detail"]["deletion-type"] == "Permanently Deleted"
    assert event["detail"]["object"]["version-id"] == first
    assert "size" not in event["detail"]["object"]


def test_deleting_many_and_nothing(bucket: Bucket) -> None:
    for key in ("a", "b"):
        bucket.s3.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    bucket.route_events()
    bucket.s3.delete_object(Bucket=bucket.name, Key="never-there")
    bucket.s3.delete_objects(Bucket=bucket.name, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    events = bucket.take(2)
    assert {event["detail"]["object"]["key"] for event in events} == {"a", "b"}
    assert {event["detail"]["deletion-type"] for event in events} == {"Permanently Deleted"}
    assert bucket.is_quiet()


def test_tagging_alone_has_its_own_event(bucket: Bucket) -> None:
    bucket.s3.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    bucket.route_events()
    bucket.s3.put_object_tagging(
        Bucket=bucket.name, Key="k", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}
    )
    assert bucket.take()[0]["detail-type"] == "Object Tags Added"


def test_bucket_without_event_bridge_is_quiet_and_the_setting_can_be_read(bucket: Bucket) -> None:
    bucket.route_events()
    assert "EventBridgeConfiguration" in bucket.s3.get_bucket_notification_configuration(Bucket=bucket.name)
    bucket.configure()
    assert "EventBridgeConfiguration" not in bucket.s3.get_bucket_notification_configuration(
        Bucket=bucket.name
    )
    bucket.s3.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    assert bucket.is_quiet()


def test_own_notifications_of_a_bucket(bucket: Bucket) -> None:
    rules = [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".jsonl"}]
    bucket.configure(
        QueueConfigurations=[
            {
                "Id": "inbox",
                "QueueArn": bucket.queue,
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": rules}},
            }
        ]
    )
    [test_event] = bucket.take()
    assert test_event["Event"] == "s3:TestEvent"
    bucket.s3.put_object(Bucket=bucket.name, Key="other.jsonl", Body=b"x")
    bucket.s3.put_object(Bucket=bucket.name, Key="in/ä b.jsonl", Body=b"hello")
    [message] = bucket.take()
    [record] = message["Records"]
    assert record["eventName"] == "ObjectCreated:Put"
    assert record["s3"]["configurationId"] == "inbox"
    assert record["s3"]["bucket"]["arn"] == f"arn:aws:s3:::{bucket.name}"
    assert record["s3"]["object"]["key"] == "in/%C3%A4+b.jsonl"
    assert record["s3"]["object"]["eTag"] == "5d41402abc4b2a76b9719d911017c592"
    assert int(record["s3"]["object"]["sequencer"], 16) > 0


def test_notification_to_a_topic(server: Any, bucket: Bucket) -> None:
    sns = server.client("sns")
    topic = sns.create_topic(Name=bucket.name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=bucket.queue)
    bucket.configure(TopicConfigurations=[{"TopicArn": topic, "Events": ["s3:ObjectRemoved:*"]}])
    assert json.loads(bucket.take()[0]["Message"])["Event"] == "s3:TestEvent"
    bucket.s3.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    bucket.s3.delete_object(Bucket=bucket.name, Key="k")
    [message] = bucket.take()
    assert json.loads(message["Message"])["Records"][0]["eventName"] == "ObjectRemoved:Delete"


def test_notification_to_a_function(server: Any, bucket: Bucket) -> None:
    function = forwarder(server, bucket.name, bucket.queue, bucket.url)
    bucket.configure(
        LambdaFunctionConfigurations=[{"LambdaFunctionArn": function, "Events": ["s3:ObjectCreated:Put"]}]
    )
    bucket.s3.put_object(Bucket=bucket.name, Key="k", Body=b"hello")
    [event] = bucket.take()
    assert event["Records"][0]["s3"]["object"]["key"] == "k"
    assert event["Records"][0]["eventSource"] == "aws:s3"
