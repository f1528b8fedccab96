"""Tasks that call services: SDK and optimised integrations, functions, nested executions, activities."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from typing import Any

import pytest

from tests.local.lambda_helpers import Functions
from tests.local.sagemaker_driver import Driver as SageMaker
from tests.local.sagemaker_driver import unique
from tests.local.stepfunctions_driver import Driver, machine, one

ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions"))


@pytest.fixture(scope="module")
def table(server: Any) -> str:
    name = f"table-{uuid.uuid4().hex[:8]}"
    server.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


@pytest.fixture(scope="module")
def bucket(server: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    server.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def functions(server: Any) -> Functions:
    return Functions(server.client)


def task(resource: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    """Return a JSONata machine with one task."""
    return one("JSONata", Type="Task", Resource=f"arn:aws:states:::{resource}", Arguments=arguments, **fields)


def test_s3_bodies_go_in_and_out_as_json(sfn: Driver, bucket: str) -> None:
    sdk = "arn:aws:states:::aws-sdk:s3:"
    place = {"Bucket": bucket, "Key": "a/b.json"}
    definition = machine(
        "JSONata",
        Put={
            "Type": "Task",
            "Resource": f"{sdk}putObject",
            "Arguments": {**place, "Body": {"n": "{% $states.input.n %}"}},
        },
        Get={
            "Type": "Task",
            "Resource": f"{sdk}getObject",
            "Arguments": place,
            "Output": {"put": "{% $states.input %}", "got": "{% $states.result %}"},
        },
        Read={
            "Type": "Pass",
            "Output": "{% $merge([$states.input, {'read': $parse($states.input.got.Body)}]) %}",
        },
    )
    result = sfn.output(definition, {"n": [1, None]})
    assert result["read"] == {"n": [1, None]}
    got = result["got"]
    assert got["Body"] == '{"n":[1,null]}'
    assert re.fullmatch(r"[\d-]+T[\d:]+Z", got["LastModified"])
    assert result["put"]["ETag"] == got["ETag"]
    assert got["ContentLength"] == 14
    assert "ResponseMetadata" not in got


def test_s3_text_bodies_stay_text(sfn: Driver, server: Any, bucket: str) -> None:
    sfn.output(task("aws-sdk:s3:putObject", {"Bucket": bucket, "Key": "t", "Body": 'plain "text"'}))
    assert server.client("s3").get_object(Bucket=bucket, Key="t")["Body"].read() == b'plain "text"'
    listed = sfn.output(task("aws-sdk:s3:listObjectsV2", {"Bucket": bucket, "Prefix": "t"}))
    assert [item["Key"] for item in listed["Contents"]] == ["t"]


ACCOUNT = "us-east-1:123456789012"
KEY = {"TableName": "none", "Key": {"id": {"S": "x"}}}
TO_NOBODY = {"TopicArn": f"arn:aws:sns:{ACCOUNT}:none", "Message": "x"}
NO_QUEUE = {"QueueUrl": "http://localhost/123456789012/none", "MessageBody": "x"}
NO_MACHINE = {"StateMachineArn": f"arn:aws:states:{ACCOUNT}:stateMachine:none"}
NO_EXECUTION = {"ExecutionArn": f"arn:aws:states:{ACCOUNT}:execution:a:b"}


@pytest.mark.parametrize(
    ("resource", "arguments", "error"),
    [
        ("aws-sdk:s3:getObject", {"Bucket": "BUCKET", "Key": "none"}, "S3.NoSuchKeyException"),
        ("aws-sdk:s3:headObject", {"Bucket": "BUCKET", "Key": "none"}, "S3.NoSuchKeyException"),
        ("aws-sdk:s3:headBucket", {"Bucket": "nobodys"}, "S3.NoSuchBucketException"),
        ("aws-sdk:sfn:describeExecution", NO_EXECUTION, "Sfn.ExecutionDoesNotExistException"),
        ("aws-sdk:sagemaker:describeTrainingJob", {"TrainingJobName": "none"}, "SageMaker."),
        ("aws-sdk:sqs:getQueueUrl", {"QueueName": "none"}, "Sqs.QueueDoesNotExistException"),
        ("aws-sdk:sns:publish", TO_NOBODY, "Sns.NotFoundException"),
        ("aws-sdk:lambda:getFunction", {"FunctionName": "none"}, "Lambda.ResourceNotFoundException"),
        ("aws-sdk:eventbridge:describeRule", {"Name": "none"}, "EventBridge.ResourceNotFoundException"),
        ("aws-sdk:dynamodb:getItem", KEY, "DynamoDb.ResourceNotFoundException"),
        ("dynamodb:getItem", KEY, "DynamoDB.ResourceNotFoundException"),
        ("sns:publish", TO_NOBODY, "SNS.NotFoundException"),
        ("sqs:sendMessage", NO_QUEUE, "SQS.QueueDoesNotExistException"),
        ("lambda:invoke", {"FunctionName": "none"}, "Lambda.ResourceNotFoundException"),
        ("states:startExecution", NO_MACHINE, "StepFunctions.StateMachineDoesNotExistException"),
    ],
)
def test_error_names_are_those_of_aws(
    sfn: Driver, bucket: str, resource: str, arguments: dict[str, Any], error: str
) -> None:
    arguments = {key: bucket if value == "BUCKET" else value for key, value in arguments.items()}
    found, cause = sfn.failure(task(resource, arguments))
    assert found.startswith(error)
    assert "Request ID: " in cause


def test_wrong_arguments_say_what_is_wrong(sfn: Driver) -> None:
    error, cause = sfn.failure(task("aws-sdk:s3:getObject", {"Bucket": "b", "Wrong": 1}))
    assert error == "States.Runtime"
    assert "Wrong" in cause
    error, cause = sfn.failure(task("aws-sdk:s3:getObject", "{% 'text' %}"))
    assert "must be an object" in cause


def test_dynamodb_sdk(sfn: Driver, table: str) -> None:
    put = task(
        "aws-sdk:dynamodb:putItem",
        {
            "TableName": table,
            "Item": {"id": {"S": "one"}, "n": {"N": "{% $string(1 + 1) %}"}, "l": {"L": [{"BOOL": True}]}},
            "ConditionExpression": "attribute_not_exists(id)",
        },
    )
    sfn.output(put)
    assert sfn.failure(put)[0] == "DynamoDb.ConditionalCheckFailedException"
    got = sfn.output(task("aws-sdk:dynamodb:getItem", {"TableName": table, "Key": {"id": {"S": "one"}}}))
    assert got["Item"]["n"] == {"N": "2"}
    assert got["Item"]["id"] == {"S": "one"}


def test_dynamodb_optimised(sfn: Driver, table: str) -> None:
    key = {"TableName": table, "Key": {"id": {"S": "two"}}}
    definition = machine(
        Put={
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:putItem",
            "Parameters": {"TableName": table, "Item": {"id": {"S": "two"}, "b": {"BOOL": True}}},
            "ResultPath": None,
        },
        Change={
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:updateItem",
            "Parameters": {
                **key,
                "UpdateExpression": "SET v = :v",
                "ExpressionAttributeValues": {":v": {"N.$": "States.Format('{}', $.v)"}},
                "ReturnValues": "ALL_NEW",
            },
            "ResultSelector": {"v.$": "$.Attributes.v.N"},
            "ResultPath": "$.changed",
        },
        Get={
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:getItem",
            "Parameters": key,
            "ResultPath": "$.got",
        },
        Drop={
            "Type": "Task",
            "Resource": "arn:aws:states:::dynamodb:deleteItem",
            "Parameters": key,
            "ResultPath": None,
        },
    )
    result = sfn.output(definition, {"v": 7})
    assert result["changed"] == {"v": "7"}
    assert result["got"]["Item"] == {"id": {"S": "two"}, "b": {"BOOL": True}, "v": {"N": "7"}}
    assert result["got"]["SdkHttpMetadata"]["HttpStatusCode"] == 200
    again = {**key, "ConditionExpression": "attribute_exists(id)"}
    error = sfn.failure(task("dynamodb:deleteItem", again))[0]
    assert error == "DynamoDB.ConditionalCheckFailedException"


def test_attribute_values_are_read_as_the_service_does(sfn: Driver, table: str) -> None:
    """A text is a string, "false" is false, and the Java SDK calls a null ``Nul``."""
    item = {"id": "loose", "b": {"BOOL": "false"}, "l": {"L": ["a"]}, "n": {"Nul": True}}
    sfn.output(task("dynamodb:putItem", {"TableName": table, "Item": item}))
    got = sfn.output(
        task("aws-sdk:dynamodb:query", {
            "TableName": table,
            "Limit": "1",
            "KeyConditionExpression": "id = :i",
            "ExpressionAttributeValues": {":i": {"S": "loose"}},
        })
    )  # fmt: skip
    assert got["Items"] == [
        {"id": {"S": "loose"}, "b": {"Bool": False}, "l": {"L": [{"S": "a"}]}, "n": {"Nul": True}}
    ]


def test_an_action_without_answer_gives_an_empty_object(sfn: Driver) -> None:
    assert sfn.output(task("aws-sdk:cloudwatch:deleteAlarms", {"AlarmNames": ["none"]})) == {}


def test_sqs_and_sns_send_objects_as_json(sfn: Driver, server: Any) -> None:
    sqs, sns = server.client("sqs"), server.client("sns")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=f"t-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    body = {"n": "{% $states.input.n %}", "s": 'a "quoted" text'}
    sent = sfn.output(task("sqs:sendMessage", {"QueueUrl": url, "MessageBody": body}), {"n": 5})
    assert sent["MessageId"]
    assert sent["MD5OfMessageBody"]
    sfn.output(task("aws-sdk:sqs:sendMessage", {"QueueUrl": url, "MessageBody": "{% 'plain' %}"}))
    published = sfn.output(
        task("sns:publish", {"TopicArn": topic, "Message": body, "Subject": "S"}), {"n": 6}
    )
    assert published["MessageId"]
    bodies: list[str] = []
    while len(bodies) < 3:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        bodies += [message["Body"] for message in answer["Messages"]]
    quoted = 'a \\"quoted\\" text'
    assert sorted(bodies) == ["plain", f'{{"n":5,"s":"{quoted}"}}', f'{{"n":6,"s":"{quoted}"}}']


@pytest.fixture(scope="module")
def caught(server: Any) -> Any:
    """Return a function that gives events of a source which a rule has sent to a queue."""
    sqs, events = server.client("sqs"), server.client("events")
    url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    name = f"r-{uuid.uuid4().hex[:8]}"
    events.put_rule(Name=name, EventPattern=json.dumps({"source": ["mine", "aws.states"]}))
    events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn}])
    seen: list[dict[str, Any]] = []

    def get(accept: Any, count: int = 1) -> list[dict[str, Any]]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = [event for event in seen if accept(event)]
            if len(found) >= count:
                return found
            answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            seen.extend(json.loads(message["Body"]) for message in answer.get("Messages", []))
        raise AssertionError(f"{count} events wanted, seen: {seen}")

    return get


def test_events_carry_the_execution(sfn: Driver, caught: Any) -> None:
    entry = {"Source": "mine", "DetailType": "Thing", "Detail": {"n": "{% $states.input.n %}"}}
    arn = sfn.start(task("events:putEvents", {"Entries": [entry]}), {"n": 1})
    execution = sfn.wait(arn)
    assert execution["status"] == "SUCCEEDED", execution
    assert json.loads(execution["output"])["FailedEntryCount"] == 0
    event = caught(lambda event: event["source"] == "mine")[0]
    assert event["detail"] == {"n": 1}
    assert event["resources"] == [arn, execution["stateMachineArn"]]
    sdk = {**entry, "Detail": '{"n": 2}'}
    assert sfn.output(task("aws-sdk:eventbridge:putEvents", {"Entries": [sdk]}))["FailedEntryCount"] == 0


def test_a_refused_event_fails_the_task(sfn: Driver) -> None:
    entry = {"Source": "mine", "DetailType": "Thing", "Detail": "no json"}
    assert sfn.failure(task("events:putEvents", {"Entries": [entry]}))[0] == "EventBridge.FailedEntry"


def test_status_changes_are_events(sfn: Driver, caught: Any) -> None:
    good = sfn.start(one(Type="Pass", Result={"r": 1}), {"i": 1})
    bad = sfn.start(one(Type="Fail", Error="E", Cause="C"))
    long = sfn.start(one(Type="Wait", Seconds=600))
    sfn.wait(good)
    sfn.wait(bad)
    sfn.client.stop_execution(executionArn=long, error="Enough")

    def of(arn: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = caught(lambda event: event["resources"] == [arn], 2)
        return sorted(found, key=lambda event: event["detail"]["status"] != "RUNNING")

    running, ended = of(good)
    assert running["detail-type"] == "Step Functions Execution Status Change"
    assert (running["detail"]["status"], running["detail"]["output"]) == ("RUNNING", None)
    detail = ended["detail"]
    execution = sfn.wait(good)
    assert detail["status"] == "SUCCEEDED"
    assert (detail["input"], detail["output"]) == ('{"i": 1}', '{"r":1}')
    assert (detail["executionArn"], detail["stateMachineArn"]) == (good, execution["stateMachineArn"])
    assert detail["name"] == execution["name"]
    assert detail["startDate"] == round(execution["startDate"].timestamp() * 1000)
    assert detail["stopDate"] == round(execution["stopDate"].timestamp() * 1000)
    detail = of(bad)[1]["detail"]
    assert (detail["status"], detail["error"], detail["cause"], detail["output"]) == (
        "FAILED",
        "E",
        "C",
        None,
    )
    detail = of(long)[1]["detail"]
    assert (detail["status"], detail["error"]) == ("ABORTED", "Enough")


HANDLER = """
class Mine(Exception):
    pass

def lambda_handler(event, context):
    if event.get("fail"):
        raise Mine("because")
    if event.get("token"):
        return None
    if event.get("big"):
        return "x" * 300_000
    if event.get("sleep"):
        import time
        time.sleep(event["sleep"])
    return {"got": event, "text": "ü"}
"""


@pytest.fixture(scope="module")
def function_arn(functions: Functions) -> str:
    name = functions.create(HANDLER)
    return str(functions.api.get_function(FunctionName=name)["Configuration"]["FunctionArn"])


def test_lambda_invoke_parses_the_payload(sfn: Driver, function_arn: str) -> None:
    arguments = {"FunctionName": function_arn, "Payload": {"n": "{% $states.input.n %}"}}
    result = sfn.output(task("lambda:invoke", arguments), {"n": [1, None]})
    assert result["Payload"] == {"got": {"n": [1, None]}, "text": "ü"}
    assert result["StatusCode"] == 200
    assert result["SdkHttpMetadata"]["HttpStatusCode"] == 200
    assert result["ExecutedVersion"] == "$LATEST"
    path = one(
        Type="Task",
        Resource="arn:aws:states:::lambda:invoke",
        Parameters={"FunctionName": function_arn, "Payload.$": "$"},
        ResultSelector={"got.$": "$.Payload.got"},
    )
    assert sfn.output(path, {"x": 1}) == {"got": {"x": 1}}


@pytest.mark.parametrize("direct", [True, False])
def test_too_large_a_result_fails_the_task(sfn: Driver, function_arn: str, direct: bool) -> None:
    """Only its own name catches it: ``States.ALL`` does not."""
    called = "arn:aws:states:::lambda:invoke"
    arguments = {"FunctionName": function_arn, "Payload": {"big": True}}
    definition = machine(
        Call={
            "Type": "Task",
            "Resource": function_arn if direct else called,
            "Parameters": {"big": True} if direct else arguments,
            "Catch": [
                {"ErrorEquals": ["States.DataLimitExceeded"], "Next": "Done"},
                {"ErrorEquals": ["States.ALL"], "Next": "Wrong"},
            ],
            "End": True,
        },
        Done={"Type": "Succeed"},
        Wrong={"Type": "Fail"},
    )
    arn = sfn.start(definition)
    cause = json.loads(sfn.wait(arn)["output"])["Cause"]
    assert f"The state/task '{function_arn if direct else 'lambda'}' returned a result with a size" in cause
    assert sfn.types(arn)[4] == ("LambdaFunctionFailed" if direct else "TaskFailed")
    del definition["States"]["Call"]["Catch"][0]
    del definition["States"]["Done"]
    assert sfn.failure(definition)[0] == "States.DataLimitExceeded"


def test_a_function_as_resource(sfn: Driver, function_arn: str) -> None:
    arn = sfn.start(one(Type="Task", Resource=function_arn, InputPath="$.a"), {"a": {"x": 1}})
    assert json.loads(sfn.wait(arn)["output"]) == {"got": {"x": 1}, "text": "ü"}
    assert sfn.types(arn)[2:5] == [
        "LambdaFunctionScheduled",
        "LambdaFunctionStarted",
        "LambdaFunctionSucceeded",
    ]
    jsonata = one(
        "JSONata", Type="Task", Resource=function_arn, Arguments={"y": 2}, Output="{% $states.result.got %}"
    )
    assert sfn.output(jsonata) == {"y": 2}
    assert sfn.output(one("JSONata", Type="Task", Resource=function_arn), {"z": 3})["got"] == {"z": 3}


def test_the_sdk_invoke_leaves_the_payload_as_text(sfn: Driver, function_arn: str) -> None:
    result = sfn.output(task("aws-sdk:lambda:invoke", {"FunctionName": function_arn, "Payload": {"n": 1}}))
    assert json.loads(result["Payload"]) == {"got": {"n": 1}, "text": "ü"}


@pytest.mark.parametrize("kind", ["invoke", "arn"])
def test_a_functions_error_class_is_the_error_name(sfn: Driver, function_arn: str, kind: str) -> None:
    catch = [
        {"ErrorEquals": ["Other"], "Next": "Lost"},
        {"ErrorEquals": ["Mine"], "Next": "Done", "Output": "{% $states.errorOutput %}"},
    ]
    if kind == "invoke":
        state = {
            "Resource": "arn:aws:states:::lambda:invoke",
            "Arguments": {"FunctionName": function_arn, "Payload": {"fail": True}},
        }
    else:
        state = {"Resource": function_arn, "Arguments": {"fail": True}}
    definition = machine(
        "JSONata",
        Call={"Type": "Task", **state, "Catch": catch, "Next": "Lost"},
        Lost={"Type": "Fail"},
        Done={"Type": "Succeed"},
    )
    error = sfn.output(definition)
    assert error["Error"] == "Mine"
    assert json.loads(error["Cause"])["errorMessage"] == "because"


def test_a_slow_function_times_out(sfn: Driver, function_arn: str) -> None:
    arn = sfn.start(
        one("JSONata", Type="Task", Resource=function_arn, Arguments={"sleep": 3}, TimeoutSeconds=1)
    )
    execution = sfn.wait(arn)
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Timeout")
    assert "LambdaFunctionTimedOut" in sfn.types(arn)
    assert (execution["stopDate"] - execution["startDate"]).total_seconds() < 2.9


def test_a_missing_function_as_resource(sfn: Driver) -> None:
    arn = "arn:aws:lambda:us-east-1:123456789012:function:none"
    assert sfn.failure(one(Type="Task", Resource=arn))[0] == "Lambda.ResourceNotFoundException"


def token_of(sfn: Driver, arn: str) -> str:
    """Return the token that a task has passed on, from the execution's history."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for event in sfn.events(arn):
            if event["type"] == "TaskScheduled":
                given = event["taskScheduledEventDetails"]["parameters"]
                found = re.search(r"token[^\w-]+([\w-]{100,})", given)
                if found and "TaskSubmitted" in sfn.types(arn):
                    return found[1]
        time.sleep(0.02)
    raise AssertionError(sfn.types(arn))


def test_every_service_waits_for_its_token(sfn: Driver, server: Any, function_arn: str) -> None:
    topic = server.client("sns").create_topic(Name=f"t-{uuid.uuid4().hex[:8]}")["TopicArn"]
    child = sfn.create(one(Type="Pass"))
    url = server.client("sqs").create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    token = {"token": "{% $states.context.Task.Token %}"}
    cases = {
        "lambda:invoke": {"FunctionName": function_arn, "Payload": token},
        "sns:publish": {"TopicArn": topic, "Message": token},
        "events:putEvents": {"Entries": [{"Source": "other", "DetailType": "T", "Detail": token}]},
        "states:startExecution": {"StateMachineArn": child, "Input": token},
        "aws-sdk:sqs:sendMessage": {"QueueUrl": url, "MessageBody": token},
    }
    arns = {name: sfn.start(task(f"{name}.waitForTaskToken", case)) for name, case in cases.items()}
    for name, arn in arns.items():
        sfn.client.send_task_success(taskToken=token_of(sfn, arn), output=json.dumps({"for": name}))
        execution = sfn.wait(arn)
        assert execution["status"] == "SUCCEEDED", execution
        assert json.loads(execution["output"]) == {"for": name}


def test_starting_another_execution(sfn: Driver) -> None:
    child = sfn.create(one(Type="Pass", Result={"deep": [1]}))
    name = f"n-{uuid.uuid4().hex}"
    started = sfn.output(
        task("states:startExecution", {"StateMachineArn": child, "Name": name, "Input": {"a": 1}})
    )
    assert started["ExecutionArn"].endswith(f":{name}")
    assert isinstance(started["StartDate"], int)
    assert json.loads(sfn.wait(started["ExecutionArn"])["input"]) == {"a": 1}
    again = task("states:startExecution", {"StateMachineArn": child, "Name": name, "Input": {"a": 2}})
    assert sfn.failure(again)[0] == "StepFunctions.ExecutionAlreadyExistsException"
    sdk = task("aws-sdk:sfn:startExecution", {"StateMachineArn": child, "Name": name, "Input": "{}"})
    assert sfn.failure(sdk)[0] == "Sfn.ExecutionAlreadyExistsException"
    named = sfn.output(task("aws-sdk:sfn:startExecution", {"StateMachineArn": child, "Input": "{}"}))
    assert set(named) == {"ExecutionArn", "StartDate"}
    assert re.fullmatch(ISO, named["StartDate"])


def test_waiting_for_another_execution(sfn: Driver) -> None:
    child = sfn.create(one("JSONata", Type="Pass", Output={"deep": "{% $states.input.a %}"}))
    arguments = {"StateMachineArn": child, "Input": {"a": "{% $states.input.a %}"}}
    text = sfn.output(task("states:startExecution.sync", arguments), {"a": 1})
    assert (text["Output"], text["Input"], text["Status"]) == ('{"deep":1}', '{"a":1}', "SUCCEEDED")
    assert text["StopDate"] >= text["StartDate"] > 1e12
    parsed = sfn.output(task("states:startExecution.sync:2", arguments), {"a": 1})
    assert (parsed["Output"], parsed["Input"]) == ({"deep": 1}, {"a": 1})
    assert parsed["StateMachineArn"] == child


def test_a_failed_child_fails_its_parent(sfn: Driver) -> None:
    child = sfn.create(one(Type="Fail", Error="Mine", Cause="so"))
    error, cause = sfn.failure(task("states:startExecution.sync:2", {"StateMachineArn": child}))
    assert error == "States.TaskFailed"
    report = json.loads(cause)
    assert (report["Status"], report["Error"], report["Cause"]) == ("FAILED", "Mine", "so")


def test_stopping_a_parent_stops_its_child(sfn: Driver) -> None:
    child = sfn.create(one(Type="Wait", Seconds=600))
    arn = sfn.start(task("states:startExecution.sync", {"StateMachineArn": child}))
    while not (running := sfn.client.list_executions(stateMachineArn=child)["executions"]):
        time.sleep(0.02)
    while "TaskSubmitted" not in sfn.types(arn):
        time.sleep(0.02)
    sfn.client.stop_execution(executionArn=arn)
    assert sfn.wait(running[0]["executionArn"])["status"] == "ABORTED"


def test_activities(sfn: Driver) -> None:
    arn = sfn.client.create_activity(name=f"a-{uuid.uuid4().hex[:8]}")["activityArn"]
    taken: list[dict[str, Any]] = []

    def work() -> None:
        taken.append(sfn.client.get_activity_task(activityArn=arn, workerName="w1"))

    worker = threading.Thread(target=work)
    worker.start()
    execution = sfn.start(
        one(Type="Task", Resource=arn, Parameters={"n.$": "$.n"}, TimeoutSeconds=60), {"n": 1}
    )
    worker.join()
    assert json.loads(taken[0]["input"]) == {"n": 1}
    sfn.client.send_task_success(taskToken=taken[0]["taskToken"], output='{"done": true}')
    assert json.loads(sfn.wait(execution)["output"]) == {"done": True}
    assert sfn.types(execution)[2:5] == ["ActivityScheduled", "ActivityStarted", "ActivitySucceeded"]
    late = sfn.start(one(Type="Task", Resource=arn, TimeoutSeconds=1))
    assert sfn.wait(late)["error"] == "States.Timeout"
    assert "ActivityTimedOut" in sfn.types(late)
    with pytest.raises(sfn.client.exceptions.ActivityDoesNotExist):
        sfn.client.get_activity_task(activityArn=arn + "x")


def test_cloudwatch_and_logs_through_the_sdk(sfn: Driver, server: Any) -> None:
    datum = {"MetricName": "M", "Value": "{% 1.5 %}", "Timestamp": "{% $now() %}"}
    sfn.output(task("aws-sdk:cloudwatch:putMetricData", {"Namespace": "N", "MetricData": [datum]}))
    metrics = server.client("cloudwatch").list_metrics(Namespace="N")["Metrics"]
    assert [metric["MetricName"] for metric in metrics] == ["M"]
    group = f"g-{uuid.uuid4().hex[:8]}"
    sfn.output(task("aws-sdk:cloudwatchlogs:createLogGroup", {"LogGroupName": group}))
    found = sfn.output(task("aws-sdk:cloudwatchlogs:describeLogGroups", {"LogGroupNamePrefix": group}))
    assert found["LogGroups"][0]["LogGroupName"] == group


@pytest.fixture(scope="module")
def jobs(server: Any) -> SageMaker:
    return SageMaker(server)


def test_a_training_job_is_awaited(sfn: Driver, jobs: SageMaker) -> None:
    request = jobs.training_request(unique("sfn"))
    report = sfn.output(task("sagemaker:createTrainingJob.sync", request, TimeoutSeconds=60))
    assert report["TrainingJobName"] == request["TrainingJobName"]
    assert report["TrainingJobStatus"] == "Completed"
    assert report["ModelArtifacts"]["S3ModelArtifacts"].endswith("model.tar.gz")
    assert isinstance(report["CreationTime"], int)
    error, cause = sfn.failure(task("sagemaker:createTrainingJob", request))
    assert error in ("SageMaker.ResourceInUseException", "SageMaker.AmazonSageMakerException")
    assert "Request ID" in cause


def test_a_failed_job_fails_its_task_with_the_description(sfn: Driver, jobs: SageMaker) -> None:
    request = jobs.training_request(unique("sfn"), HyperParameters={"fail": "no labels"})
    error, cause = sfn.failure(task("sagemaker:createTrainingJob.sync", request))
    assert error == "States.TaskFailed"
    report = json.loads(cause)
    assert report["TrainingJobStatus"] == "Failed"
    assert "no labels" in report["FailureReason"]
    processing = jobs.processing_request(unique("sfn"), "exit=3", "message=bad data")
    error, cause = sfn.failure(task("sagemaker:createProcessingJob.sync", processing))
    assert (error, json.loads(cause)["ProcessingJobStatus"]) == ("States.TaskFailed", "Failed")


def test_a_processing_job_is_awaited(sfn: Driver, jobs: SageMaker) -> None:
    request = jobs.processing_request(unique("sfn"))
    report = sfn.output(task("sagemaker:createProcessingJob.sync", request))
    assert (report["ProcessingJobStatus"], report["ProcessingJobName"]) == (
        "Completed",
        request["ProcessingJobName"],
    )


@pytest.mark.parametrize("ending", ["stop", "timeout"])
def test_ending_the_task_stops_its_job(sfn: Driver, jobs: SageMaker, ending: str) -> None:
    request = jobs.training_request(unique("sfn"), HyperParameters={"seconds": "600"})
    limits = {"TimeoutSeconds": 3} if ending == "timeout" else {}
    arn = sfn.start(task("sagemaker:createTrainingJob.sync", request, **limits))
    while "TaskSubmitted" not in sfn.types(arn):
        time.sleep(0.02)
    if ending == "stop":
        sfn.client.stop_execution(executionArn=arn)
    assert sfn.wait(arn)["status"] == ("ABORTED" if ending == "stop" else "FAILED")
    assert jobs.trained(request["TrainingJobName"])["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize(
    "resource",
    [
        "arn:aws:states:::aws-sdk:nosuch:thing",
        "arn:aws:states:::aws-sdk:s3:noSuchAction",
        "arn:aws:states:::ecs:runTask.sync",
        "arn:aws:states:::sqs:sendMessage.sync",
        "no arn",
    ],
)
def test_an_unknown_resource_is_refused_at_creation(sfn: Driver, resource: str) -> None:
    with pytest.raises(sfn.client.exceptions.InvalidDefinition, match="SCHEMA_VALIDATION_FAILED"):
        sfn.create(one(Type="Task", Resource=resource))


def test_a_null_is_no_parameter_and_a_missing_one_is_the_services_error(sfn: Driver, server: Any) -> None:
    url = server.client("sqs").create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    send = {"QueueUrl": url, "MessageBody": "x", "DelaySeconds": None}
    assert "MessageId" in sfn.output(task("sqs:sendMessage", send))
    error, cause = sfn.failure(task("sqs:sendMessage", {**send, "MessageBody": None}))
    assert (error, "MessageBody" in cause) == ("SQS.AmazonSQSException", True)
    assert sfn.failure(task("aws-sdk:sqs:sendMessage", {"QueueUrl": url}))[0] == "Sqs.SqsException"


def test_the_optimised_integrations_word_their_causes_otherwise(sfn: Driver) -> None:
    cause = sfn.failure(task("states:startExecution", NO_MACHINE))[1]
    assert "(Service: AWSStepFunctions; Status Code: 400; Error Code: StateMachineDoesNotExist;" in cause
    cause = sfn.failure(task("aws-sdk:sfn:startExecution", NO_MACHINE))[1]
    assert "(Service: Sfn, Status Code: 400, Request ID: " in cause
