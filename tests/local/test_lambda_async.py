"""Asynchronous invocations: retries, the age limit, destinations, dead-letter queues."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.ports import free_port
from tests.local.lambda_helpers import Functions, eventually, running_server

FAILING = """
def lambda_handler(event, context):
    print("attempt", event)
    raise RuntimeError("not today")
"""


@pytest.fixture(scope="module")
def functions() -> Iterator[Functions]:
    """A server whose asynchronous minute lasts a twentieth of a second."""
    with running_server(free_port(), TRUTHLOOP_LAMBDA_RETRY_MINUTE="0.05") as server:
        yield Functions(server.client)


def send(functions: Functions, name: str, event: Any, **options: Any) -> str:
    answer = functions.api.invoke(
        FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode(), **options
    )
    assert answer["StatusCode"] == 202
    return str(answer["ResponseMetadata"]["RequestId"])


def attempts(functions: Functions, name: str) -> int:
    return sum(line.startswith("attempt") for line in functions.log(name))


def test_a_failing_event_is_tried_three_times_and_reported(functions: Functions) -> None:
    name = functions.create(FAILING)
    url, arn = functions.queue()
    functions.api.put_function_event_invoke_config(
        FunctionName=name, DestinationConfig={"OnFailure": {"Destination": arn}}
    )

    request_id = send(functions, name, {"a": 1})

    record = json.loads(functions.messages(url, 1)[0]["Body"])
    timestamp = record.pop("timestamp")
    payload = record.pop("responsePayload")
    assert timestamp.endswith("Z")
    assert payload["errorMessage"] == "not today"
    assert payload["requestId"] == request_id
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }
    assert attempts(functions, name) == 3


def test_the_number_of_retries_can_be_set_and_updated(functions: Functions) -> None:
    name = functions.create(FAILING)
    url, arn = functions.queue()
    destination = {"OnFailure": {"Destination": arn}}
    functions.api.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig=destination
    )
    send(functions, name, 1)
    first = json.loads(functions.messages(url, 1)[0]["Body"])
    functions.api.update_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    send(functions, name, 2)
    second = json.loads(functions.messages(url, 1)[0]["Body"])

    assert first["requestContext"]["approximateInvokeCount"] == 1
    assert second["requestContext"]["approximateInvokeCount"] == 2
    kept = functions.api.get_function_event_invoke_config(FunctionName=name)
    assert kept["MaximumRetryAttempts"] == 1
    assert kept["DestinationConfig"]["OnFailure"]["Destination"] == arn


def test_an_event_that_is_too_old_is_given_up(functions: Functions) -> None:
    name = functions.create(FAILING)
    url, arn = functions.queue()
    functions.api.put_function_event_invoke_config(
        FunctionName=name, MaximumEventAgeInSeconds=100, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    send(functions, name, 1)

    context = json.loads(functions.messages(url, 1)[0]["Body"])["requestContext"]

    # one minute later it is tried again; two more minutes would exceed its age of 100 seconds
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 2)


def test_a_throttled_event_waits_and_is_never_run_if_it_gets_too_old(functions: Functions) -> None:
    name = functions.create()
    url, arn = functions.queue()
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    functions.api.put_function_event_invoke_config(
        FunctionName=name, MaximumEventAgeInSeconds=60, DestinationConfig={"OnFailure": {"Destination": arn}}
    )
    send(functions, name, {"b": 2})

    record = json.loads(functions.messages(url, 1)[0]["Body"])

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert "responsePayload" not in record


def test_a_throttled_event_runs_when_there_is_room(functions: Functions) -> None:
    name = functions.create()
    url, arn = functions.queue()
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    functions.api.put_function_event_invoke_config(
        FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": arn}}
    )
    send(functions, name, {"b": 2})
    functions.api.delete_function_concurrency(FunctionName=name)

    record = json.loads(functions.messages(url, 1)[0]["Body"])

    assert record["requestContext"]["condition"] == "Success"
    assert record["responsePayload"] == {"b": 2}


def test_success_goes_to_a_topic_and_to_another_function(functions: Functions) -> None:
    url, arn = functions.queue()
    topic = functions.client("sns").create_topic(Name=f"t-{uuid.uuid4().hex[:8]}")["TopicArn"]
    functions.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    last = functions.create()
    last_arn = functions.api.get_function_configuration(FunctionName=last)["FunctionArn"]
    for name, destination in ((last, topic), (functions.create(), last_arn)):
        functions.api.put_function_event_invoke_config(
            FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": destination}}
        )

    send(functions, name, {"n": 1})

    outer = json.loads(json.loads(functions.messages(url, 1)[0]["Body"])["Message"])
    inner = outer["requestPayload"]  # the record of the first function is the event of the second
    assert inner["responsePayload"] == {"n": 1}
    assert inner["requestContext"]["condition"] == "Success"
    assert "functionError" not in inner["responseContext"]


def test_a_result_goes_to_an_event_bus(functions: Functions) -> None:
    url, arn = functions.queue()
    events = functions.client("events")
    rule = f"r-{uuid.uuid4().hex[:8]}"
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["lambda"]}))
    events.put_targets(Rule=rule, Targets=[{"Id": "q", "Arn": arn}])
    name = functions.create()
    functions.api.put_function_event_invoke_config(
        FunctionName=name,
        DestinationConfig={
            "OnSuccess": {"Destination": "arn:aws:events:us-east-1:123456789012:event-bus/default"}
        },
    )

    send(functions, name, {"n": 1})

    event = json.loads(functions.messages(url, 1)[0]["Body"])
    assert event["detail-type"] == "Lambda Function Invocation Result - Success"
    assert event["detail"]["responsePayload"] == {"n": 1}
    assert f"arn:aws:lambda:us-east-1:123456789012:function:{name}:$LATEST" in event["resources"]


def test_the_dead_letter_queue_gets_the_event_itself(functions: Functions) -> None:
    url, arn = functions.queue()
    name = functions.create(FAILING, DeadLetterConfig={"TargetArn": arn})

    request_id = send(functions, name, {"a": 1})

    message = functions.messages(url, 1)[0]
    attributes = {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}
    assert json.loads(message["Body"]) == {"a": 1}
    assert attributes == {"RequestID": request_id, "ErrorCode": "200", "ErrorMessage": "not today"}
    config = functions.api.get_function_configuration(FunctionName=name)
    assert config["DeadLetterConfig"] == {"TargetArn": arn}


def test_a_destination_that_is_not_delivered_to_is_refused(functions: Functions) -> None:
    with pytest.raises(ClientError, match="destinations of the service s3"):
        functions.api.put_function_event_invoke_config(
            FunctionName=functions.create(),
            DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::some-bucket"}},
        )


def test_an_event_of_a_deleted_function_is_dropped(functions: Functions) -> None:
    name = functions.create(FAILING)
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    send(functions, name, 1)
    functions.api.delete_function(FunctionName=name)

    other = functions.create()
    eventually(lambda: functions.invoke(other, 5) == 5)
    with pytest.raises(functions.api.exceptions.ResourceNotFoundException):
        send(functions, name, 1)
