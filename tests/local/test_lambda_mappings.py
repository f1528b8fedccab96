"""SQS event source mappings: batching, partial failures, redrive, filters, updates; and the queues below."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.lambda_runtime.batches import BadBatchResponseError, failed_items
from tests.local.lambda_helpers import Functions, eventually

REPORTING = """
import json
def lambda_handler(event, context):
    bodies = [record["body"] for record in event["Records"]]
    print("batch", json.dumps(bodies))
    bad = [record for record in event["Records"] if record["body"].startswith("bad")]
    return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in bad]}
"""
PRINTING = """
import json
def lambda_handler(event, context):
    print("event", json.dumps(event))
"""


@pytest.fixture(scope="module")
def functions(server: Any) -> Functions:
    return Functions(lambda service: server.client(service, retries={"total_max_attempts": 1}))


def mapping(functions: Functions, name: str, arn: str, **properties: Any) -> str:
    return str(
        functions.api.create_event_source_mapping(FunctionName=name, EventSourceArn=arn, **properties)["UUID"]
    )


def send(functions: Functions, url: str, *bodies: str, **options: Any) -> None:
    sqs = functions.client("sqs")
    for start in range(0, len(bodies), 10):
        entries = [
            {"Id": str(n), "MessageBody": body} | options for n, body in enumerate(bodies[start : start + 10])
        ]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)


def batches(functions: Functions, name: str) -> list[list[str]]:
    return [json.loads(line[6:]) for line in functions.log(name) if line.startswith("batch")]


def waiting(functions: Functions, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = functions.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(int(value) for value in answer["Attributes"].values())


def test_the_event_has_the_shape_of_aws(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(PRINTING)
    mapping(functions, name, arn)
    sent = functions.client("sqs").send_message(
        QueueUrl=url,
        MessageBody="hello",
        MessageAttributes={
            "kind": {"DataType": "String", "StringValue": "greeting"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
        },
    )

    lines = eventually(lambda: [line for line in functions.log(name) if line.startswith("event")])

    record = json.loads(lines[0][6:])["Records"][0]
    attributes = record.pop("attributes")
    lists: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert len(record.pop("receiptHandle")) > 20
    assert record == {
        "messageId": sent["MessageId"],
        "body": "hello",
        "messageAttributes": {
            "kind": {"stringValue": "greeting", "dataType": "String"} | lists,
            "raw": {"binaryValue": "AAE=", "dataType": "Binary"} | lists,
        },
        "md5OfBody": hashlib.md5(b"hello").hexdigest(),
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    }  # fmt: skip
    assert attributes["ApproximateReceiveCount"] == "1"
    assert set(attributes) == {
        "ApproximateReceiveCount", "SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp",
    }  # fmt: skip
    eventually(lambda: waiting(functions, url) == 0)


def test_a_message_is_picked_up_at_once(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(PRINTING)
    functions.invoke(name)  # warm
    mapping(functions, name, arn)
    took = []
    for count in range(1, 4):
        before = time.time() * 1000
        send(functions, url, "x")
        lines = eventually(
            lambda count=count: [line for line in functions.log(name) if "Records" in line][count - 1 :]
        )
        received = json.loads(lines[0][6:])["Records"][0]["attributes"]["ApproximateFirstReceiveTimestamp"]
        took.append(int(received) - before)

    # Some ten milliseconds; others' work can hold up one message, a poll in intervals would hold up all.
    assert min(took) < 1000


def test_the_window_gathers_and_a_full_batch_goes_early(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(REPORTING)
    uuid = mapping(functions, name, arn, BatchSize=20, MaximumBatchingWindowInSeconds=2)
    started = time.monotonic()
    for n in range(3):
        send(functions, url, f"{n}")

    assert eventually(lambda: batches(functions, name)) == [["0", "1", "2"]]
    assert time.monotonic() - started > 1.9

    functions.api.update_event_source_mapping(UUID=uuid, MaximumBatchingWindowInSeconds=300)
    send(functions, url, *(str(n) for n in range(20)))
    assert len(eventually(lambda: batches(functions, name)[1:])[0]) == 20


def test_the_batch_size_is_the_most_that_is_given(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(REPORTING)
    send(functions, url, *(str(n) for n in range(7)))
    mapping(functions, name, arn, BatchSize=3)

    eventually(lambda: sum(map(len, batches(functions, name))) == 7)
    assert max(map(len, batches(functions, name))) == 3


def test_partial_failures_come_again_and_end_in_the_dead_letter_queue(functions: Functions) -> None:
    dead_url, dead_arn = functions.queue()
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    url, arn = functions.queue(VisibilityTimeout="3", RedrivePolicy=redrive)
    name = functions.create(REPORTING, Timeout=3)
    functions.invoke(name, {"Records": []})  # warm: a start could take longer than a message stays hidden
    uuid = mapping(functions, name, arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    send(functions, url, "good", "bad one", "fine")

    dead = functions.messages(dead_url, 1)

    assert [message["Body"] for message in dead] == ["bad one"]
    assert sum(map(len, batches(functions, name))) == 4  # three, and the bad one once more
    assert waiting(functions, url) == 0
    assert functions.api.get_event_source_mapping(UUID=uuid)["LastProcessingResult"] == "OK"


def test_without_reporting_the_answer_is_ignored_and_an_error_fails_all(functions: Functions) -> None:
    url, arn = functions.queue(VisibilityTimeout="1")
    name = functions.create(
        REPORTING
        + "\ndef explode(event, context):\n    lambda_handler(event, context)\n    raise OSError('down')\n",
        Timeout=1,
    )
    uuid = mapping(functions, name, arn)
    send(functions, url, "bad")
    eventually(lambda: batches(functions, name))
    eventually(lambda: waiting(functions, url) == 0)

    functions.api.update_function_configuration(FunctionName=name, Handler="app.explode")
    send(functions, url, "a", "b")
    eventually(lambda: sum(map(len, batches(functions, name))) >= 5)  # both came back

    assert waiting(functions, url) == 2
    state = functions.api.get_event_source_mapping(UUID=uuid)
    assert state["LastProcessingResult"] == "PROBLEM: Function call failed"


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"{}", b'{"batchItemFailures": null}', b'{"batchItemFailures": []}', b'{"other": 1}'],
)
def test_answers_that_mean_success(answer: bytes) -> None:
    assert failed_items(answer, {"a"}) == set()


@pytest.mark.parametrize(
    "answer",
    [
        b'"done"', b"[]", b"not json", b'{"batchItemFailures": "a"}', b'{"batchItemFailures": ["a"]}',
        b'{"batchItemFailures": [{"itemIdentifier": ""}]}',
        b'{"batchItemFailures": [{"itemIdentifier": null}]}',
        b'{"batchItemFailures": [{"id": "a"}]}', b'{"batchItemFailures": [{"itemIdentifier": "b"}]}',
    ],
)  # fmt: skip
def test_answers_that_fail_the_whole_batch(answer: bytes) -> None:
    with pytest.raises(BadBatchResponseError):
        failed_items(answer, {"a"})


def test_a_malformed_answer_brings_the_whole_batch_back(functions: Functions) -> None:
    url, arn = functions.queue(VisibilityTimeout="1")
    source = REPORTING.replace('record["messageId"]', '""')
    name = functions.create(source, Timeout=1)
    mapping(functions, name, arn, FunctionResponseTypes=["ReportBatchItemFailures"])
    send(functions, url, "good", "bad")

    eventually(lambda: sum(map(len, batches(functions, name))) >= 3)
    assert waiting(functions, url) == 2


def test_filtered_messages_are_deleted_unseen(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(REPORTING)
    pattern = json.dumps({"body": {"kind": [{"prefix": "ground"}]}})
    mapping(functions, name, arn, FilterCriteria={"Filters": [{"Pattern": pattern}]})
    wanted = json.dumps({"kind": "ground truth"})
    send(functions, url, json.dumps({"kind": "other"}), "no json", wanted, "[1]")

    assert eventually(lambda: batches(functions, name)) == [[wanted]]
    eventually(lambda: waiting(functions, url) == 0)


def test_disable_enable_update_delete(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(REPORTING)
    uuid = mapping(functions, name, arn, Enabled=False)
    send(functions, url, "waits")
    time.sleep(0.3)
    assert waiting(functions, url) == 1
    assert functions.api.get_event_source_mapping(UUID=uuid)["State"] == "Disabled"

    functions.api.update_event_source_mapping(UUID=uuid, Enabled=True, BatchSize=2)
    assert eventually(lambda: batches(functions, name)) == [["waits"]]
    listed = functions.api.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    assert [(entry["UUID"], entry["BatchSize"]) for entry in listed] == [(uuid, 2)]

    assert functions.api.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    send(functions, url, "stays")
    time.sleep(0.3)
    assert waiting(functions, url) == 1
    assert len(batches(functions, name)) == 1


def test_maximum_concurrency_bounds_the_batches_at_a_time(functions: Functions) -> None:
    url, arn = functions.queue()
    source = """
import time
def lambda_handler(event, context):
    print("slot", time.time())
    time.sleep(0.5)
"""
    name = functions.create(source)
    uuid = mapping(functions, name, arn, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    send(functions, url, *"abcdef")

    eventually(lambda: waiting(functions, url) == 0)
    times = sorted(float(line.split()[1]) for line in functions.log(name) if line.startswith("slot"))
    assert len(times) == 6
    assert all(later - earlier > 0.4 for earlier, later in zip(times, times[2:], strict=False))
    functions.api.delete_event_source_mapping(UUID=uuid)


def test_throttled_batches_are_tried_again(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(REPORTING)
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    mapping(functions, name, arn)
    send(functions, url, "patient")
    time.sleep(0.3)
    functions.api.delete_function_concurrency(FunctionName=name)

    assert eventually(lambda: batches(functions, name)) == [["patient"]]


def test_fifo_keeps_the_order_of_a_group(functions: Functions) -> None:
    url, arn = functions.queue(FifoQueue="true", ContentBasedDeduplication="true")
    name = functions.create(REPORTING)
    mapping(functions, name, arn, BatchSize=2)
    send(functions, url, *"abcdef", MessageGroupId="g")
    send(functions, url, "a", MessageGroupId="g")  # deduplicated, whether still there or already done

    eventually(lambda: waiting(functions, url) == 0)
    assert [body for batch in batches(functions, name) for body in batch] == list("abcdef")


def test_a_mapping_of_an_alias_runs_the_version(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(
        "def lambda_handler(event, context):\n    print('version', context.invoked_function_arn)"
    )
    functions.api.publish_version(FunctionName=name)
    functions.api.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    mapping(functions, f"{name}:live", arn)
    send(functions, url, "x")

    lines = eventually(lambda: [line for line in functions.log(name) if line.startswith("version")])
    assert lines[0].strip().endswith(f"{name}:live")


def test_a_deleted_function_leaves_the_messages(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create()
    uuid = mapping(functions, name, arn)
    functions.api.delete_function(FunctionName=name)
    send(functions, url, "x")

    def result() -> bool:
        state = functions.api.get_event_source_mapping(UUID=uuid)
        return bool(state["LastProcessingResult"] == "PROBLEM: Function not found")

    eventually(result)
    assert waiting(functions, url) == 1
    functions.api.delete_event_source_mapping(UUID=uuid)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (
            {"EventSourceArn": "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-01"},
            "only SQS queues",
        ),
        ({"EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:missing"}, "specified queue does not exist"),
        ({"BatchSize": 11}, "greater than 0 if maximum batch size is greater than 10"),
        ({"BatchSize": 10_001, "MaximumBatchingWindowInSeconds": 1}, "between 1 and 10000"),
        ({"MaximumBatchingWindowInSeconds": 301}, "between 0 and 300"),
        ({"ScalingConfig": {"MaximumConcurrency": 1001}}, "between 2 and 1000"),
        ({"BisectBatchOnFunctionError": True}, "not supported for event source type sqs"),
        ({"ProvisionedPollerConfig": {"MinimumPollers": 2}}, "does not emulate ProvisionedPollerConfig"),
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"body": "x"}'}]}}, "Invalid filter pattern"),
    ],
)
def test_invalid_mappings_are_refused(functions: Functions, properties: dict[str, Any], message: str) -> None:
    _, arn = functions.queue()
    with pytest.raises(ClientError, match=message) as refused:
        functions.api.create_event_source_mapping(
            **({"FunctionName": functions.create(), "EventSourceArn": arn} | properties)
        )
    assert refused.value.response["Error"]["Code"] in (
        "InvalidParameterValueException",
        "ParamValidationError",
    )


def test_a_queue_that_hides_messages_for_too_short_is_refused(functions: Functions) -> None:
    _, arn = functions.queue(VisibilityTimeout="5")
    with pytest.raises(ClientError, match="visibility timeout: 5 seconds is less than Function timeout: 10"):
        mapping(functions, functions.create(), arn)


def test_a_second_mapping_of_the_same_pair_conflicts(functions: Functions) -> None:
    _, arn = functions.queue()
    name = functions.create()
    mapping(functions, name, arn)
    with pytest.raises(functions.api.exceptions.ResourceConflictException):
        mapping(functions, name, arn)


def test_a_mapping_that_does_not_exist_cannot_be_deleted(functions: Functions) -> None:
    with pytest.raises(functions.api.exceptions.ResourceNotFoundException):
        functions.api.delete_event_source_mapping(UUID="12345678-1234-1234-1234-123456789012")


def test_concurrent_receivers_never_share_a_message(functions: Functions) -> None:
    url, _ = functions.queue(VisibilityTimeout="60")
    sqs = functions.client("sqs")
    seen: list[str] = []

    def receive() -> None:
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2).get("Messages"):
            for message in messages:
                seen.append(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def produce(first: int) -> None:
        send(functions, url, *(str(n) for n in range(first, first + 40)))

    send(functions, url, *(str(n) for n in range(40)))
    threads = [threading.Thread(target=receive) for _ in range(4)]
    threads.append(threading.Thread(target=produce, args=(40,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    receive()

    assert sorted(map(int, seen)) == list(range(80))


def test_a_long_poll_sees_a_message_as_soon_as_it_is_visible_again(functions: Functions) -> None:
    url, _ = functions.queue(VisibilityTimeout="1")
    send(functions, url, "x")
    sqs = functions.client("sqs")
    started = time.monotonic()
    sqs.receive_message(QueueUrl=url)

    again = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["All"])["Messages"][0]

    assert 0.99 < time.monotonic() - started < 15
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
