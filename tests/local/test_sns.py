"""Topics: filters, raw and wrapped delivery, HTTP, functions, mail, retries and dead letters."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.events.sns import accepts

ACCOUNT = "123456789012"


class Topic:
    """A topic and a queue that may subscribe to it."""

    def __init__(self, server: Any) -> None:
        self.sns, self.sqs = server.client("sns"), server.client("sqs")
        self.name = f"topic-{uuid.uuid4().hex[:8]}"
        self.arn = self.sns.create_topic(Name=self.name)["TopicArn"]
        self.url = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        self.queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    def subscribe(self, protocol: str = "sqs", endpoint: str = "", **attributes: str) -> str:
        return str(
            self.sns.subscribe(
                TopicArn=self.arn,
                Protocol=protocol,
                Endpoint=endpoint or self.queue,
                Attributes=attributes,
                ReturnSubscriptionArn=True,
            )["SubscriptionArn"]
        )

    def publish(self, message: str = "hello", **settings: Any) -> str:
        return str(self.sns.publish(TopicArn=self.arn, Message=message, **settings)["MessageId"])

    def take(self, wait: int = 20) -> list[Any]:
        answer = self.sqs.receive_message(
            QueueUrl=self.url, WaitTimeSeconds=wait, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", []):
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return list(answer.get("Messages", []))


@pytest.fixture
def topic(server: Any) -> Topic:
    return Topic(server)


ATTRIBUTES = {
    "kind": {"DataType": "String", "StringValue": "label"},
    "size": {"DataType": "Number", "StringValue": "5"},
    "blob": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
}


def test_wrapped_message(topic: Topic) -> None:
    topic.subscribe(RawMessageDelivery="false")
    message_id = topic.publish(Subject="greeting", MessageAttributes=ATTRIBUTES)
    [message] = topic.take()
    body = json.loads(message["Body"])
    assert (body["Type"], body["MessageId"], body["TopicArn"]) == ("Notification", message_id, topic.arn)
    assert (body["Subject"], body["Message"]) == ("greeting", "hello")
    assert body["MessageAttributes"]["size"] == {"Type": "Number", "Value": "5"}
    assert body["Timestamp"].endswith("Z")


def test_raw_message_keeps_its_attributes(topic: Topic) -> None:
    topic.subscribe(RawMessageDelivery="true")
    topic.publish(MessageAttributes=ATTRIBUTES)
    [message] = topic.take()
    assert message["Body"] == "hello"
    assert message["MessageAttributes"]["kind"]["StringValue"] == "label"
    assert message["MessageAttributes"]["blob"]["BinaryValue"] == b"\x00\x01"


def test_message_structure_chooses_by_protocol(topic: Topic) -> None:
    topic.subscribe(RawMessageDelivery="true")
    topic.publish(json.dumps({"default": "for all", "sqs": "for queues"}), MessageStructure="json")
    assert topic.take()[0]["Body"] == "for queues"


def test_filter_on_attributes_and_on_the_body(topic: Topic) -> None:
    policy = json.dumps({"kind": ["label"], "size": [{"numeric": [">", 4]}]})
    arn = topic.subscribe(RawMessageDelivery="true", FilterPolicy=policy)
    topic.publish("passes", MessageAttributes=ATTRIBUTES)
    topic.publish("no attributes")
    assert [message["Body"] for message in topic.take()] == ["passes"]
    topic.sns.unsubscribe(SubscriptionArn=arn)
    body = json.dumps({"detail": {"score": [{"numeric": ["<", 0.5]}]}})
    topic.subscribe(RawMessageDelivery="true", FilterPolicyScope="MessageBody", FilterPolicy=body)
    low = json.dumps({"detail": {"score": 0.1}})
    topic.publish(low)
    topic.publish(json.dumps({"detail": {"score": 0.9}}))
    topic.publish("no JSON")
    assert [message["Body"] for message in topic.take()] == [low]


@pytest.mark.parametrize(
    ("policy", "attributes", "passes"),
    [
        ({"a": ["x"]}, {"a": {"Type": "String", "Value": "x"}}, True),
        ({"a": ["5"]}, {"a": {"Type": "Number", "Value": "5"}}, False),
        ({"a": [5]}, {"a": {"Type": "Number", "Value": "5.0"}}, True),
        ({"a": ["y"]}, {"a": {"Type": "String.Array", "Value": '["x", "y"]'}}, True),
        ({"a": ["["]}, {"a": {"Type": "String.Array", "Value": "["}}, True),
        ({"a": [{"exists": False}]}, {}, True),
        ({"a": [{"anything-but": ["x"]}]}, {"a": {"Type": "String", "Value": "x"}}, False),
        ({"$or": [{"a": ["x"]}, {"b": ["y"]}]}, {"b": {"Type": "String", "Value": "y"}}, True),
        (None, {}, True),
    ],
)
def test_filter_policy(policy: dict[str, Any] | None, attributes: dict[str, Any], passes: bool) -> None:
    assert accepts(policy, {}, attributes, "text") is passes


def test_function_gets_a_record(server: Any, topic: Topic) -> None:
    code = """
import json, os, boto3
def handle(event, _):
    boto3.client("sqs").send_message(QueueUrl=os.environ["URL"], MessageBody=json.dumps(event))
"""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("app.py", code)
    iam = server.client("iam")
    role = iam.create_role(RoleName=topic.name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    allowed = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": topic.queue}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.put_role_policy(RoleName=topic.name, PolicyName="send", PolicyDocument=json.dumps(policy))
    function = server.client("lambda").create_function(
        FunctionName=topic.name,
        Runtime="python3.13",
        Handler="app.handle",
        Role=role,
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": {"URL": topic.url}},
        Timeout=20,
    )
    arn = topic.subscribe("lambda", function["FunctionArn"])
    message_id = topic.publish(Subject="greeting")
    [record] = json.loads(topic.take()[0]["Body"])["Records"]
    assert (record["EventSource"], record["EventSubscriptionArn"]) == ("aws:sns", arn)
    assert (record["Sns"]["MessageId"], record["Sns"]["Message"]) == (message_id, "hello")
    assert (record["Sns"]["Subject"], record["Sns"]["TopicArn"]) == ("greeting", topic.arn)


class Listener:
    """An HTTP endpoint that answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[tuple[dict[str, str], str]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                listener.received.append((dict(self.headers.items()), body))
                self.send_response(listener.answers.pop(0) if listener.answers else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/hook"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + 60
        while len(self.received) < count:
            assert time.monotonic() < end, f"{len(self.received)} requests"
            time.sleep(0.02)


@pytest.fixture
def listener() -> Iterator[Listener]:
    endpoint = Listener()
    yield endpoint
    endpoint.http.shutdown()
    endpoint.http.server_close()


def test_http_is_tried_again_after_a_server_error(topic: Topic, listener: Listener) -> None:
    topic.subscribe("http", listener.url)
    listener.answers = [500, 429]
    message_id = topic.publish()
    listener.wait_for(3)
    headers, body = listener.received[-1]
    assert headers["x-amz-sns-message-type"] == "Notification"
    assert headers["x-amz-sns-topic-arn"] == topic.arn
    assert json.loads(body)["MessageId"] == message_id


def test_http_client_error_goes_to_the_dead_letter_queue(topic: Topic, listener: Listener) -> None:
    redrive = json.dumps({"deadLetterTargetArn": topic.queue})
    topic.subscribe("http", listener.url, RedrivePolicy=redrive, RawMessageDelivery="true")
    listener.answers = [403]
    message_id = topic.publish()
    [letter] = topic.take()
    assert letter["Body"] == "hello"
    assert letter["MessageAttributes"]["RequestID"]["StringValue"] == message_id
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "ERROR_FROM_TARGET"
    assert "403" in letter["MessageAttributes"]["ErrorMessage"]["StringValue"]
    assert len(listener.received) == 1
    assert listener.received[0][0]["x-amz-sns-rawdelivery"] == "true"


def test_endpoint_that_nobody_serves_is_given_up(topic: Topic, listener: Listener) -> None:
    listener.http.shutdown()
    listener.http.server_close()
    topic.subscribe("http", listener.url, RedrivePolicy=json.dumps({"deadLetterTargetArn": topic.queue}))
    topic.publish()
    [letter] = topic.take()
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "CONNECTION_FAILURE"


def test_queue_that_is_gone_does_not_disturb_the_publisher(server: Any, topic: Topic) -> None:
    missing = f"arn:aws:sqs:us-east-1:{ACCOUNT}:nowhere-{topic.name}"
    topic.subscribe("sqs", missing, RedrivePolicy=json.dumps({"deadLetterTargetArn": topic.queue}))
    topic.publish()
    [letter] = topic.take()
    assert json.loads(letter["Body"])["Message"] == "hello"
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "NO_RESOURCE"


def test_fifo_topic_to_fifo_queue(server: Any) -> None:
    sns, sqs, name = server.client("sns"), server.client("sqs"), f"t{uuid.uuid4().hex[:8]}.fifo"
    topic = sns.create_topic(Name=name, Attributes={"FifoTopic": "true"})["TopicArn"]
    url = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})
    sns.publish(TopicArn=topic, Message="first", MessageGroupId="g", MessageDeduplicationId="d")
    [message] = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["All"])["Messages"]
    assert message["Attributes"]["MessageGroupId"] == "g"
    assert message["Attributes"]["MessageDeduplicationId"] == "d"


@pytest.mark.parametrize(
    ("protocol", "endpoint", "words"),
    [
        ("https", "https://example.com/hook", "is not on this machine"),
        ("http", "http://10.0.0.1/hook", "is not on this machine"),
        ("sms", "+15555550100", "does not deliver by sms"),
        (
            "firehose",
            "arn:aws:firehose:us-east-1:123456789012:deliverystream/x",
            "does not deliver by firehose",
        ),
    ],
)
def test_endpoint_out_of_reach_is_refused(topic: Topic, protocol: str, endpoint: str, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        topic.subscribe(protocol, endpoint)


def test_mail_is_kept() -> None:
    from moto.sns.models import sns_backends

    from local.context import LocalAws
    from local.events.delivery import Deliverer
    from local.events.sns import Topics
    from local.events.timers import Timers

    aws = LocalAws(1)
    topics = Topics(aws, Deliverer(aws, Timers(aws)))
    backend = sns_backends[ACCOUNT]["us-east-1"]
    topic = backend.create_topic(f"mail-{uuid.uuid4().hex[:8]}")
    subscription = backend.subscribe(topic.arn, "team@example.com", "email")
    topics.publish(subscription, "the text", "m-1", subject="the subject")
    kept = aws.workdir / "mail" / "m-1.json"
    end = time.monotonic() + 60
    while not kept.exists() or not kept.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    mail = json.loads(kept.read_text())
    aws.stop()
    assert (mail["to"], mail["subject"], mail["body"]) == ("team@example.com", "the subject", "the text")
