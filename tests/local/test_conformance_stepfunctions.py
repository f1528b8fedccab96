"""Whole workflows as a stranger writes them: patterns of AWS's documentation and samples, over HTTP alone.

The other tests of Step Functions prove one rule each; these prove that the rules hold together.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.local.stepfunctions_driver import Driver, machine, one

STATES = "arn:aws:states:::"


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions"))


def task(resource: str, parameters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": STATES + resource, "Parameters": parameters, **fields}


def make_table(server: Any, key: str = "id") -> str:
    name = f"table-{uuid.uuid4().hex[:8]}"
    server.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


class Queue:
    """A queue of the embedded AWS and what arrives there."""

    def __init__(self, server: Any) -> None:
        self.api = server.client("sqs")
        self.url = self.api.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
        attributes = self.api.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.arn = attributes["Attributes"]["QueueArn"]

    def take(self) -> Any:
        """Return the next message's body as JSON."""
        message = self.api.receive_message(QueueUrl=self.url, WaitTimeSeconds=10)["Messages"][0]
        self.api.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return json.loads(message["Body"])


def test_a_semaphore_in_dynamodb_lets_one_execution_in(server: Any, sfn: Driver) -> None:
    """A conditional update takes the lock; the first execution finds no item and makes it."""
    table = make_table(server, "LockName")
    lock = {"TableName": table, "Key": {"LockName": {"S": "l"}}}
    names = {"#held": "held", "#owner.$": "$$.Execution.Id"}
    acquire = task(
        "dynamodb:updateItem",
        {
            **lock,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": {
                ":one": {"N": "1"},
                ":now": {"S.$": "$$.State.EnteredTime"},
            },
            "UpdateExpression": "SET #held = #held + :one, #owner = :now",
            "ConditionExpression": "#held <> :one AND attribute_not_exists(#owner)",
        },
        Retry=[
            {"ErrorEquals": ["DynamoDB.AmazonDynamoDBException"], "MaxAttempts": 0},
            {"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 5, "BackoffRate": 1},
        ],
        Catch=[
            {
                "ErrorEquals": ["DynamoDB.AmazonDynamoDBException"],
                "ResultPath": "$.problem",
                "Next": "Init",
            }
        ],
        End=True,
    )
    first = task(
        "dynamodb:putItem",
        {
            "TableName": table,
            "Item": {"LockName": {"S": "l"}, "held": {"N": "0"}},
            "ConditionExpression": "attribute_not_exists(LockName)",
        },
        Catch=[{"ErrorEquals": ["States.ALL"], "ResultPath": None, "Next": "Acquire"}],
        ResultPath=None,
        Next="Acquire",
    )
    release = task(
        "dynamodb:updateItem",
        {
            **lock,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": {":one": {"N": "1"}},
            "UpdateExpression": "SET #held = #held - :one REMOVE #owner",
            "ConditionExpression": "attribute_exists(#owner)",
        },
        ResultPath=None,
    )
    definition = machine(
        Get={
            "Type": "Parallel",
            "Branches": [{"StartAt": "Acquire", "States": {"Acquire": acquire, "Init": first}}],
            "ResultPath": None,
        },
        Work={"Type": "Pass", "Parameters": {"at.$": "$$.State.EnteredTime"}, "ResultPath": "$.work"},
        Hold={"Type": "Wait", "Seconds": 1},
        Release=release,
    )
    machine_arn = sfn.create(definition)
    started = [
        sfn.client.start_execution(stateMachineArn=machine_arn, input='{"i":1}')["executionArn"]
        for _ in range(2)
    ]
    outputs = [json.loads(sfn.wait(arn)["output"]) for arn in started]
    assert [output["i"] for output in outputs] == [1, 1]
    first_in, second_in = sorted(datetime.fromisoformat(output["work"]["at"]) for output in outputs)
    assert second_in - first_in >= timedelta(seconds=1)
    item = server.client("dynamodb").get_item(**lock)["Item"]
    assert item == {"LockName": {"S": "l"}, "held": {"N": "0"}}


def test_people_approve_and_a_quorum_ends_the_waiting(server: Any, sfn: Driver) -> None:
    """Three task tokens wait in parallel; the second approval fails the Parallel on purpose."""
    queue, table = Queue(server), make_table(server)
    key = {"TableName": table, "Key": {"id": {"S.$": "$$.Execution.Name"}}}

    def branch(number: int) -> dict[str, Any]:
        ask, count, check, done, met = (
            f"{word}{number}" for word in ("Ask", "Count", "Check", "Done", "Met")
        )
        states = {
            ask: task(
                "sqs:sendMessage.waitForTaskToken",
                {"QueueUrl": queue.url, "MessageBody": {"token.$": "$$.Task.Token", "who": number}},
                TimeoutSeconds=60,
                Next=count,
            ),
            count: task(
                "dynamodb:updateItem",
                {
                    **key,
                    "UpdateExpression": "ADD votes :one",
                    "ExpressionAttributeValues": {":one": {"N": "1"}},
                    "ReturnValues": "UPDATED_NEW",
                },
                ResultSelector={"votes.$": "States.StringToJson($.Attributes.votes.N)"},
                Next=check,
            ),
            check: {
                "Type": "Choice",
                "Choices": [
                    {
                        "Variable": "$.votes",
                        "NumericGreaterThanEqualsPath": "$$.Execution.Input.quorum",
                        "Next": met,
                    }
                ],
                "Default": done,
            },
            met: {"Type": "Fail", "Error": "QuorumMet"},
            done: {"Type": "Succeed"},
        }
        return {"StartAt": ask, "States": states}

    definition = machine(
        Vote={
            "Type": "Parallel",
            "Branches": [branch(number) for number in range(3)],
            "Catch": [{"ErrorEquals": ["QuorumMet"], "ResultPath": "$.end", "Next": "Approved"}],
            "Next": "Late",
        },
        Late={"Type": "Fail"},
        Approved={"Type": "Succeed", "OutputPath": "$.end.Error"},
    )
    arn = sfn.start(definition, {"quorum": 2})
    asked = [queue.take() for _ in range(3)]
    assert sorted(item["who"] for item in asked) == [0, 1, 2]
    for item in asked[:2]:
        sfn.client.send_task_success(taskToken=item["token"], output="{}")
    assert json.loads(sfn.wait(arn)["output"]) == "QuorumMet"
    with pytest.raises(sfn.client.exceptions.TaskTimedOut):
        sfn.client.send_task_success(taskToken=asked[2]["token"], output="{}")
    types = sfn.types(arn)
    # The first voter may still be counting when the second makes the quorum.
    assert types.count("TaskSubmitted") == 3
    assert types.count("TaskStateAborted") in (1, 2)


def test_a_saga_undoes_what_it_did_in_reverse(server: Any, sfn: Driver) -> None:
    """Each step is caught to the compensation of the one before; the event tells how it ended."""
    queue, table, events = Queue(server), make_table(server), server.client("events")
    source = f"saga.{uuid.uuid4().hex[:8]}"
    events.put_rule(
        Name=source,
        EventPattern=json.dumps({"source": [source], "detail": {"left": [{"numeric": ["=", 0]}]}}),
    )
    transformer = {
        "InputPathsMap": {"why": "$.detail.why", "left": "$.detail.left", "by": "$.resources[0]"},
        "InputTemplate": '{"text": "<why> with <left> left", "left": <left>, "by": <by>}',
    }
    target = {"Id": "q", "Arn": queue.arn, "InputTransformer": transformer}
    events.put_targets(Rule=source, Targets=[target])

    def item(name: str) -> dict[str, Any]:
        return {"id": {"S": f"{{% $id & '-{name}' %}}"}}

    def step(action: str, arguments: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {"Type": "Task", "Resource": STATES + action, "Arguments": arguments, **fields}

    def caught(undo: str) -> list[dict[str, Any]]:
        return [
            {
                "ErrorEquals": ["States.TaskFailed"],
                "Assign": {"why": "{% $states.errorOutput.Error %}"},
                "Next": undo,
            }
        ]

    definition = machine(
        "JSONata",
        Start={"Type": "Pass", "Assign": {"id": "{% $states.input.id %}"}},
        Hotel=step("dynamodb:putItem", {"TableName": table, "Item": item("hotel")}, Catch=caught("Tell")),
        Flight=step(
            "aws-sdk:dynamodb:putItem", {"TableName": table, "Item": item("flight")}, Catch=caught("NoHotel")
        ),
        Pay=step(
            "aws-sdk:s3:getObject",
            {"Bucket": "no-such-bank", "Key": "k"},
            Catch=caught("NoFlight"),
            Next="Paid",
        ),
        NoFlight=step("dynamodb:deleteItem", {"TableName": table, "Key": item("flight")}),
        NoHotel=step("dynamodb:deleteItem", {"TableName": table, "Key": item("hotel")}),
        Tell=step("aws-sdk:dynamodb:scan", {"TableName": table, "Select": "COUNT"}),
        Publish=step(
            "events:putEvents",
            {
                "Entries": [
                    {
                        "Source": source,
                        "DetailType": "Saga",
                        "Detail": {"why": "{% $why %}", "left": "{% $states.input.Count %}"},
                        "EventBusName": "default",
                    }
                ]
            },
        ),
        Failed={"Type": "Fail", "Error": "Cancelled", "Cause": "{% 'because of ' & $why %}"},
        Paid={"Type": "Succeed"},
    )
    execution = sfn.run(definition, {"id": "trip"})
    assert (execution["error"], execution["cause"]) == ("Cancelled", "because of S3.NoSuchBucketException")
    assert queue.take() == {
        "text": "S3.NoSuchBucketException with 0 left",
        "left": 0,
        "by": execution["executionArn"],
    }


def test_a_file_is_fanned_out_in_batches_and_its_results_lie_in_s3(server: Any, sfn: Driver) -> None:
    """A distributed Map reads CSV, tolerates one bad batch of three, and writes a manifest."""
    s3, bucket = server.client("s3"), f"b-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    rows = "".join(f"{number},{'bad' if number == 5 else 'ok'}\n" for number in range(1, 7))
    s3.put_object(Bucket=bucket, Key="in/rows.csv", Body=f"id,state\n{rows}".encode())
    inside = machine(
        "JSONata",
        Check={
            "Type": "Choice",
            "Choices": [{"Condition": "{% 'bad' in $states.input.Items.state %}", "Next": "Bad"}],
            "Default": "Sum",
        },
        Sum={
            "Type": "Pass",
            "Output": {"f": "{% $states.input.BatchInput.factor * $sum($states.input.Items.$number(id)) %}"},
            "End": True,
        },
        Bad={"Type": "Fail", "Error": "BadRow"},
    )
    definition = machine(
        "JSONata",
        Set={"Type": "Pass", "Assign": {"factor": 10}},
        Each={
            "Type": "Map",
            "ItemReader": {
                "Resource": f"{STATES}s3:getObject",
                "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
                "Arguments": {"Bucket": bucket, "Key": "{% $states.input.key %}"},
            },
            "ItemBatcher": {"MaxItemsPerBatch": 2, "BatchInput": {"factor": "{% $factor %}"}},
            "MaxConcurrency": 2,
            "ToleratedFailurePercentage": 34,
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": inside["StartAt"],
                "States": inside["States"],
            },
            "ResultWriter": {
                "Resource": f"{STATES}s3:putObject",
                "Arguments": {"Bucket": bucket, "Prefix": "out"},
            },
        },
        Read={
            "Type": "Task",
            "Resource": f"{STATES}aws-sdk:s3:getObject",
            "Arguments": "{% $states.input.ResultWriterDetails %}",
            "Output": "{% $parse($states.result.Body) %}",
        },
    )
    arn = sfn.start(definition, {"key": "in/rows.csv"})
    manifest = json.loads(sfn.wait(arn)["output"])
    files = manifest["ResultFiles"]
    assert (manifest["DestinationBucket"], len(files["FAILED"]), files["PENDING"]) == (bucket, 1, [])

    def rows_of(status: str) -> list[dict[str, Any]]:
        body = s3.get_object(Bucket=bucket, Key=files[status][0]["Key"])["Body"].read()
        found: list[dict[str, Any]] = json.loads(body)
        return found

    assert sorted(json.loads(row["Output"])["f"] for row in rows_of("SUCCEEDED")) == [30, 70]
    assert [row["Error"] for row in rows_of("FAILED")] == ["BadRow"]
    run = sfn.client.list_map_runs(executionArn=arn)["mapRuns"][0]["mapRunArn"]
    counts = sfn.client.describe_map_run(mapRunArn=run)["itemCounts"]
    assert (counts["total"], counts["succeeded"], counts["failed"]) == (6, 4, 2)


def test_pages_are_followed_until_there_is_no_more(server: Any, sfn: Driver) -> None:
    table = make_table(server)
    dynamodb = server.client("dynamodb")
    for number in range(5):
        dynamodb.put_item(TableName=table, Item={"id": {"S": str(number)}, "n": {"N": str(number)}})
    scan = {"TableName": table, "Limit": 2}
    definition = machine(
        Init={"Type": "Pass", "Assign": {"pages": 0}},
        First=task("aws-sdk:dynamodb:scan", scan, Next="Each"),
        Each={
            "Type": "Map",
            "ItemsPath": "$.Items",
            "ItemSelector": {"item.$": "$$.Map.Item.Value", "page.$": "$pages"},
            "ItemProcessor": {
                "StartAt": "Mark",
                "States": {
                    "Mark": task(
                        "dynamodb:updateItem",
                        {
                            "TableName": table,
                            "Key": {"id.$": "$.item.id"},
                            "UpdateExpression": "SET page = :p",
                            "ExpressionAttributeValues": {":p": {"N.$": "$.page"}},
                        },
                        End=True,
                    )
                },
            },
            "ResultPath": None,
            "Assign": {"pages.$": "States.MathAdd($pages, 1)"},
            "Next": "More",
        },
        More={
            "Type": "Choice",
            "Choices": [{"Variable": "$.LastEvaluatedKey", "IsPresent": True, "Next": "Again"}],
            "Default": "Done",
        },
        Again=task(
            "aws-sdk:dynamodb:scan", {**scan, "ExclusiveStartKey.$": "$.LastEvaluatedKey"}, Next="Each"
        ),
        Done={"Type": "Pass", "Parameters": {"pages.$": "$pages"}},
    )
    assert sfn.output(definition) == {"pages": 3}
    pages = sorted(item["page"]["N"] for item in dynamodb.scan(TableName=table)["Items"])
    assert pages == ["0", "0", "1", "1", "2"]


def test_a_parent_takes_its_childs_output_apart(server: Any, sfn: Driver) -> None:
    """sync:2 gives JSON, a failed child is caught as States.TaskFailed with its description."""
    child = sfn.create(
        machine(
            "JSONata",
            Check={
                "Type": "Choice",
                "Choices": [{"Condition": "{% $states.input.n > 2 %}", "Next": "Large"}],
                "Default": "Fine",
            },
            Fine={"Type": "Succeed", "Output": {"square": "{% $power($states.input.n, 2) %}"}},
            Large={"Type": "Fail", "Error": "TooLarge", "Cause": "{% $string($states.input.n) %}"},
        )
    )
    run = {
        "Type": "Task",
        "Resource": f"{STATES}states:startExecution.sync:2",
        "Arguments": {"StateMachineArn": child, "Input": {"n": "{% $states.input %}"}},
        "Output": "{% $states.result.Output.square %}",
        "Catch": [
            {
                "ErrorEquals": ["States.TaskFailed"],
                "Output": "{% $parse($states.errorOutput.Cause).(Error & ' ' & Cause & ' ' & Status) %}",
                "Next": "Kept",
            }
        ],
        "End": True,
    }
    definition = one(
        "JSONata",
        Type="Map",
        Items=[1, 2, 3],
        ItemProcessor={"StartAt": "Run", "States": {"Run": run, "Kept": {"Type": "Succeed"}}},
    )
    assert sfn.output(definition) == [1, 4, "TooLarge 3 FAILED"]


def test_time_limits_from_the_narrowest_to_the_widest(server: Any, sfn: Driver) -> None:
    """A heartbeat, a task's and the machine's limit end where AWS says: caught, FAILED, TIMED_OUT."""
    queue = Queue(server)
    send = {"QueueUrl": queue.url, "MessageBody": {"token.$": "$$.Task.Token"}}
    waiting = "sqs:sendMessage.waitForTaskToken"
    caught = machine(
        Ask=task(
            waiting,
            send,
            HeartbeatSecondsPath="$.beat",
            Catch=[
                {"ErrorEquals": ["States.TaskFailed"], "Next": "Wrong"},
                {"ErrorEquals": ["States.HeartbeatTimeout"], "ResultPath": "$.e", "Next": "Right"},
            ],
            End=True,
        ),
        Wrong={"Type": "Fail"},
        Right={"Type": "Succeed", "OutputPath": "$.e"},
    )
    started = [
        sfn.start(caught, {"beat": 1}),
        sfn.start(one(**task(waiting, send, TimeoutSeconds=1))),
        sfn.start({**one(Type="Wait", Seconds=60), "TimeoutSeconds": 1}),
    ]
    began = time.monotonic()
    heartbeat, limit, whole = (sfn.wait(arn) for arn in started)
    assert time.monotonic() - began < 50  # nobody waited out the 60 seconds
    assert json.loads(heartbeat["output"]) == {"Error": "States.Timeout"}
    assert (limit["status"], limit["error"], limit.get("cause")) == ("FAILED", "States.Timeout", None)
    assert (whole["status"], sfn.types(started[2])[-1]) == ("TIMED_OUT", "ExecutionTimedOut")
    assert sfn.types(started[1])[-3:] == ["TaskSubmitted", "TaskTimedOut", "ExecutionFailed"]
