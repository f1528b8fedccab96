"""The API of Step Functions: names, pages, types, versions, validation."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.stepfunctions_driver import ROLE, Driver, machine, one


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions", inject_host_prefix=False))


def test_a_name_starts_one_execution(sfn: Driver) -> None:
    arn = sfn.create(one(Type="Wait", Seconds=1))
    start = sfn.client.start_execution
    first = start(stateMachineArn=arn, name="n", input='{"a": 1}')
    again = start(stateMachineArn=arn, name="n", input='{"a":1}')
    assert (again["executionArn"], again["startDate"]) == (first["executionArn"], first["startDate"])
    with pytest.raises(sfn.client.exceptions.ExecutionAlreadyExists):
        start(stateMachineArn=arn, name="n", input='{"a": 2}')
    sfn.client.stop_execution(executionArn=first["executionArn"])
    with pytest.raises(sfn.client.exceptions.ExecutionAlreadyExists):
        start(stateMachineArn=arn, name="n", input='{"a": 1}')
    unnamed = {start(stateMachineArn=arn)["executionArn"] for _ in range(3)}
    assert len(unnamed) == 3


@pytest.mark.parametrize("name", ["with space", "a" * 81, "star*", "tab\t", "a/b"])
def test_a_bad_name_is_refused(sfn: Driver, name: str) -> None:
    arn = sfn.create(one(Type="Pass"))
    with pytest.raises(ClientError) as caught:
        sfn.client.start_execution(stateMachineArn=arn, name=name)
    assert caught.value.response["Error"]["Code"] in ("InvalidName", "ValidationException")


def test_bad_input_is_refused(sfn: Driver) -> None:
    arn = sfn.create(one(Type="Pass"))
    for text in ("{", '"\\ud83d"', '"' + "x" * 262_144 + '"'):
        with pytest.raises(sfn.client.exceptions.InvalidExecutionInput):
            sfn.client.start_execution(stateMachineArn=arn, input=text)
    with pytest.raises(sfn.client.exceptions.StateMachineDoesNotExist):
        sfn.client.start_execution(stateMachineArn=arn + "x")
    with pytest.raises(sfn.client.exceptions.ExecutionDoesNotExist):
        sfn.client.describe_execution(executionArn=arn.replace("stateMachine", "execution") + ":none")


def test_executions_are_listed_by_status_in_pages(sfn: Driver) -> None:
    definition = machine(
        Pick={
            "Type": "Choice",
            "Choices": [{"Variable": "$.fail", "BooleanEquals": True, "Next": "Bad"}],
            "Default": "Good",
        },
        Good={"Type": "Succeed"},
        Bad={"Type": "Fail"},
    )
    arn = sfn.create(definition)
    started = []
    for number in range(5):
        text = json.dumps({"fail": number % 2 == 1})
        started.append(sfn.client.start_execution(stateMachineArn=arn, input=text)["executionArn"])
        sfn.wait(started[-1])

    def listed(**options: Any) -> list[str]:
        pages = sfn.client.get_paginator("list_executions").paginate(stateMachineArn=arn, **options)
        return [item["executionArn"] for page in pages for item in page["executions"]]

    assert listed() == started[::-1]
    assert listed(PaginationConfig={"PageSize": 2}) == started[::-1]
    assert listed(statusFilter="FAILED") == [started[3], started[1]]
    first = sfn.client.list_executions(stateMachineArn=arn, maxResults=1)["executions"][0]
    assert {"executionArn", "name", "startDate", "stopDate", "stateMachineArn", "status"} <= set(first)
    with pytest.raises(sfn.client.exceptions.InvalidToken):
        sfn.client.list_executions(stateMachineArn=arn, nextToken="!")


def test_history_in_pages_and_backwards(sfn: Driver) -> None:
    arn = sfn.start(machine(A={"Type": "Pass"}, B={"Type": "Pass"}, C={"Type": "Succeed"}), {"x": 1})
    sfn.wait(arn)
    events = sfn.events(arn)
    assert [event["id"] for event in events] == list(range(1, 9))
    assert [event["previousEventId"] for event in events] == [0, 0, 2, 3, 4, 5, 6, 7]
    assert events[0]["executionStartedEventDetails"] == {
        "input": '{"x": 1}',
        "inputDetails": {"truncated": False},
        "roleArn": ROLE,
    }
    assert events[1]["stateEnteredEventDetails"]["name"] == "A"
    assert events[-1]["executionSucceededEventDetails"]["output"] == '{"x":1}'
    assert all(abs(event["timestamp"].timestamp() - time.time()) < 60 for event in events)
    page = sfn.client.get_execution_history(executionArn=arn, maxResults=3, reverseOrder=True)
    assert [event["id"] for event in page["events"]] == [8, 7, 6]
    rest = sfn.client.get_execution_history(executionArn=arn, reverseOrder=True, nextToken=page["nextToken"])
    assert [event["id"] for event in rest["events"]] == [5, 4, 3, 2, 1]
    bare = sfn.client.get_execution_history(executionArn=arn, includeExecutionData=False)["events"]
    assert "input" not in bare[0]["executionStartedEventDetails"]


def test_an_update_is_for_new_executions(sfn: Driver) -> None:
    arn = sfn.create(machine(W={"Type": "Wait", "Seconds": 1}, P={"Type": "Pass", "Result": "old"}))
    old = sfn.client.start_execution(stateMachineArn=arn)["executionArn"]
    sfn.client.update_state_machine(
        stateMachineArn=arn, definition=json.dumps(one(Type="Pass", Result="new"))
    )
    new = sfn.client.start_execution(stateMachineArn=arn)["executionArn"]
    assert sfn.wait(new)["output"] == '"new"'
    assert sfn.wait(old)["output"] == '"old"'
    kept = sfn.client.describe_state_machine_for_execution(executionArn=old)
    assert json.loads(kept["definition"])["StartAt"] == "W"
    with pytest.raises(sfn.client.exceptions.InvalidDefinition):
        sfn.client.update_state_machine(stateMachineArn=arn, definition="{}")
    with pytest.raises(sfn.client.exceptions.MissingRequiredParameter):
        sfn.client.update_state_machine(stateMachineArn=arn)


def test_creating_again_is_idempotent(sfn: Driver) -> None:
    settings = {"name": f"m-{uuid.uuid4().hex}", "definition": json.dumps(one(Type="Pass")), "roleArn": ROLE}
    first = sfn.client.create_state_machine(**settings)
    assert sfn.client.create_state_machine(**settings)["stateMachineArn"] == first["stateMachineArn"]
    with pytest.raises(sfn.client.exceptions.StateMachineAlreadyExists):
        sfn.client.create_state_machine(**{**settings, "definition": json.dumps(one(Type="Succeed"))})


def test_versions_and_aliases_run(sfn: Driver) -> None:
    settings = {"name": f"m-{uuid.uuid4().hex}", "roleArn": ROLE, "publish": True}
    answer = sfn.client.create_state_machine(definition=json.dumps(one(Type="Pass", Result=1)), **settings)
    version, arn = answer["stateMachineVersionArn"], answer["stateMachineArn"]
    sfn.client.update_state_machine(stateMachineArn=arn, definition=json.dumps(one(Type="Pass", Result=2)))
    routes = [{"stateMachineVersionArn": version, "weight": 100}]
    alias = sfn.client.create_state_machine_alias(name="live", routingConfiguration=routes)
    for target in (version, alias["stateMachineAliasArn"]):
        execution = sfn.wait(sfn.client.start_execution(stateMachineArn=target)["executionArn"])
        assert (execution["output"], execution["stateMachineArn"]) == ("1", arn)
    with pytest.raises(sfn.client.exceptions.StateMachineDoesNotExist):
        sfn.client.start_execution(stateMachineArn=f"{arn}:dead")


def test_express_machines(sfn: Driver) -> None:
    arn = sfn.create(one(Type="Pass", Result={"r": 1}), kind="EXPRESS")
    answer = sfn.client.start_sync_execution(stateMachineArn=arn, input='{"i": 1}')
    assert (answer["status"], answer["output"], answer["input"]) == ("SUCCEEDED", '{"r":1}', '{"i": 1}')
    assert ":express:" in answer["executionArn"]
    assert answer["billingDetails"]["billedDurationInMilliseconds"] >= 100
    failed = sfn.create(one(Type="Fail", Error="E", Cause="C"), kind="EXPRESS")
    answer = sfn.client.start_sync_execution(stateMachineArn=failed)
    assert (answer["status"], answer["error"], answer["cause"]) == ("FAILED", "E", "C")
    names = [sfn.client.start_execution(stateMachineArn=arn, name="same")["executionArn"] for _ in range(2)]
    assert len(set(names)) == 2
    with pytest.raises(sfn.client.exceptions.StateMachineTypeNotSupported):
        sfn.client.start_sync_execution(stateMachineArn=sfn.create(one(Type="Pass")))
    # Only the answer of StartSyncExecution and the log group tell about an Express execution.
    with pytest.raises(sfn.client.exceptions.StateMachineTypeNotSupported):
        sfn.client.list_executions(stateMachineArn=arn)
    for ask in (
        sfn.client.stop_execution,
        sfn.client.describe_execution,
        sfn.client.get_execution_history,
    ):
        with pytest.raises(ClientError, match=r"InvalidArn.*not valid in this context: express"):
            ask(executionArn=names[0])


def test_a_type_that_does_not_exist_is_refused(sfn: Driver) -> None:
    with pytest.raises(ClientError, match=r"ValidationException.*\[STANDARD, EXPRESS\]"):
        sfn.create(one(Type="Pass"), kind="FAST")


def test_a_machine_without_logging_says_so(sfn: Driver) -> None:
    found = sfn.client.describe_state_machine(stateMachineArn=sfn.create(one(Type="Pass")))
    assert found["loggingConfiguration"] == {"level": "OFF", "includeExecutionData": False}


def test_redrive_says_that_it_is_missing(sfn: Driver) -> None:
    arn = sfn.start(one(Type="Fail"))
    sfn.wait(arn)
    with pytest.raises(sfn.client.exceptions.ExecutionNotRedrivable, match="lacks RedriveExecution"):
        sfn.client.redrive_execution(executionArn=arn)


LISTING = "arn:aws:states:::aws-sdk:s3:listBuckets"


def both(**fields: Any) -> dict[str, Any]:
    """Return a Parallel state with one branch."""
    branch = {"StartAt": "Inner", "States": {"Inner": {"Type": "Succeed"}}}
    return one(Type="Parallel", Branches=[branch], **fields)


def retrying(**rule: Any) -> dict[str, Any]:
    return both(Retry=[{"ErrorEquals": ["E"], **rule}])


def compare(**rule: Any) -> dict[str, Any]:
    """Return a Choice state with one rule, about ``$.a`` unless it says otherwise."""
    nested = {"And", "Or", "Not"} & set(rule)
    about = {} if nested else {"Variable": "$.a"}
    return machine(A={"Type": "Choice", "Choices": [{**about, **rule, "Next": "B"}]}, B={"Type": "Succeed"})


def each(states: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a Map state over the given states."""
    return one(Type="Map", ItemProcessor={"StartAt": next(iter(states)), "States": states}, **fields)


BROKEN: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "INVALID_JSON_DESCRIPTION"),
    "no object": ("[]", "INVALID_JSON_DESCRIPTION"),
    "no states": ({"StartAt": "A"}, "These fields are required: [States] at /"),
    "empty states": ({"StartAt": "A", "States": {}}, "/States"),
    "start": ({"StartAt": "B", "States": {"A": {"Type": "Succeed"}}}, "MISSING_TRANSITION_TARGET"),
    "next": (one(Type="Pass", Next="Nowhere"), "Missing 'Next' target: Nowhere"),
    "default": (
        machine(
            A={"Type": "Choice", "Choices": [{"Variable": "$", "IsNull": True, "Next": "B"}], "Default": "C"},
            B={"Type": "Succeed"},
        ),
        "Missing 'Default' target: C",
    ),
    "catch": (both(Catch=[{"ErrorEquals": ["E"], "Next": "Z"}]), "Missing 'Catch[0]/Next' target: Z"),
    "unreachable": (machine(A={"Type": "Succeed"}, B={"Type": "Succeed"}), 'State "B" is not reachable.'),
    "type": (one(Type="Sleep"), "'Sleep'"),
    "unknown field": (one(Type="Pass", Wrong=1), "'Wrong' is not supported"),
    "unknown top field": ({**one(Type="Pass"), "Wrong": 1}, "/Wrong"),
    "language": (one("JMESPath", Type="Pass"), "JMESPath"),
    "JSONPath in JSONata": (
        one("JSONata", Type="Pass", Parameters={}),
        "'Parameters' is not supported for state type 'Pass' under QueryLanguage JSONata",
    ),
    "JSONata in JSONPath": (one(Type="Pass", Output={}), "'Output'"),
    "JSONPath state in JSONata": (one("JSONata", Type="Pass", QueryLanguage="JSONPath"), "QueryLanguage"),
    "next and end": (one(Type="Pass", Next="Only", End=True), "exactly one"),
    "expression": (one("JSONata", Type="Pass", Output="{% $a + %}"), "does not parse"),
    "path": (one(Type="Pass", InputPath="a.b"), "not a valid JSONPath"),
    "template path": (one(Type="Pass", Parameters={"x.$": "a"}), "not a valid JSONPath"),
    "intrinsic": (one(Type="Pass", Parameters={"x.$": "States.Nope()"}), "intrinsic"),
    "result path": (one(Type="Pass", ResultPath="$.a[*]"), "not a reference path"),
    "wait": (one(Type="Wait"), "exactly one of Seconds"),
    "seconds": (one(Type="Wait", Seconds="5"), "'Seconds' must be an integer"),
    "timestamp": (one(Type="Wait", Timestamp="now"), "RFC 3339"),
    "choices": (machine(A={"Type": "Choice", "Choices": []}), "[Choices]"),
    "operator": (
        machine(A={"Type": "Choice", "Choices": [{"Variable": "$.a", "Next": "A"}]}),
        "exactly one comparison",
    ),
    "condition": (
        machine(
            "JSONata",
            A={"Type": "Choice", "Choices": [{"Condition": "yes", "Next": "B"}]},
            B={"Type": "Succeed"},
        ),
        "'Condition' must be",
    ),
    "resource": (one(Type="Task"), "[Resource]"),
    "timeout": (one(Type="Task", Resource=LISTING, TimeoutSeconds=0), "positive integer"),
    "heartbeat": (one(Type="Task", Resource=LISTING, TimeoutSeconds=5, HeartbeatSeconds=5), "less than"),
    "error equals": (both(Retry=[{"ErrorEquals": []}]), "ErrorEquals"),
    "nothing": ({}, "These fields are required: [States, StartAt] at /"),
    "no start": ({"States": {"A": {"Type": "Succeed"}}}, "These fields are required: [StartAt] at /"),
    "version": ({**one(Type="Pass"), "Version": "2.0"}, "'Version' must be 1.0"),
    "error and path": (one(Type="Fail", Error="E", ErrorPath="$.e"), "either 'Error' or 'ErrorPath'"),
    "variable": (one("JSONata", Type="Pass", Assign={"a-b": 1}), "'a-b' cannot name a variable"),
    "variable of the service": (one(Type="Pass", Assign={"states": 1}), "cannot name a variable"),
    "variables": (one("JSONata", Type="Pass", Assign=[1]), "'Assign' must be an object"),
    "operand": (compare(NumericEquals="1"), "'NumericEquals' cannot compare with"),
    "truth": (compare(IsPresent="yes"), "'IsPresent' cannot compare with"),
    "moment": (compare(TimestampLessThan="soon"), "'TimestampLessThan' cannot compare with"),
    "wildcard": (compare(StringMatches=1), "'StringMatches' cannot compare with"),
    "inner next": (compare(And=[{"Variable": "$.a", "IsNull": True, "Next": "B"}]), "outermost rule"),
    "inner rule": (compare(Not="$.a"), "must be an object"),
    "two processors": (
        each({"I": {"Type": "Succeed"}}, Iterator={"StartAt": "J", "States": {"J": {"Type": "Succeed"}}}),
        "either 'ItemProcessor' or 'Iterator'",
    ),
    "label": (each({"I": {"Type": "Succeed"}}, Label="x" * 41), "'Label' must be"),
    "execution type": (
        one(
            Type="Map",
            ItemProcessor={
                "ProcessorConfig": {"Mode": "DISTRIBUTED"},
                "StartAt": "I",
                "States": {"I": {"Type": "Succeed"}},
            },
        ),
        "must be STANDARD or EXPRESS",
    ),
    "items": (
        one(
            "JSONata",
            Type="Map",
            Items="all",
            ItemProcessor={"StartAt": "I", "States": {"I": {"Type": "Succeed"}}},
        ),
        "'Items' must be",
    ),
    "all not last": (both(Retry=[{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["E"]}]), "last"),
    "backoff": (retrying(BackoffRate=0.5), "BackoffRate"),
    "delay": (retrying(IntervalSeconds=5, MaxDelaySeconds=5), "MaxDelaySeconds"),
    "jitter": (retrying(JitterStrategy="SOME"), "JitterStrategy"),
    "branches": (one(Type="Parallel", Branches=[]), "[Branches]"),
    "processor": (one(Type="Map"), "[ItemProcessor]"),
    "inline batcher": (each({"P": {"Type": "Succeed"}}, ItemBatcher={}), "DISTRIBUTED"),
    "inner": (each({"P": {"Type": "Pass", "Next": "Q"}}), "/States/Only/ItemProcessor/States/P/Next"),
    "duplicate": (each({"Only": {"Type": "Succeed"}}), "DUPLICATE_STATE_NAME"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_definition_is_refused(sfn: Driver, name: str) -> None:
    definition, words = BROKEN[name]
    text = definition if isinstance(definition, str) else json.dumps(definition)
    with pytest.raises(sfn.client.exceptions.InvalidDefinition) as caught:
        sfn.client.create_state_machine(name=f"m-{uuid.uuid4().hex}", definition=text, roleArn=ROLE)
    assert words in caught.value.response["Error"]["Message"]
    report = sfn.client.validate_state_machine_definition(definition=text)
    assert report["result"] == "FAIL"
    assert {"severity", "code", "message", "location"} <= set(report["diagnostics"][0])


def test_a_good_definition_validates(sfn: Driver) -> None:
    report = sfn.client.validate_state_machine_definition(definition=json.dumps(one(Type="Pass")))
    assert (report["result"], report["diagnostics"]) == ("OK", [])
    loop = json.dumps(machine(A={"Type": "Pass", "Next": "B"}, B={"Type": "Pass", "Next": "A"}))
    report = sfn.client.validate_state_machine_definition(definition=loop, severity="WARNING")
    assert report["result"] == "OK"
    assert [item["severity"] for item in report["diagnostics"]] == ["WARNING"]


def test_deleting_a_machine_frees_its_names(sfn: Driver) -> None:
    settings = {"name": f"m-{uuid.uuid4().hex}", "roleArn": ROLE}
    definition = json.dumps(one(Type="Wait", Seconds=600))
    arn = sfn.client.create_state_machine(definition=definition, **settings)["stateMachineArn"]
    running = sfn.client.start_execution(stateMachineArn=arn, name="n")["executionArn"]
    sfn.client.delete_state_machine(stateMachineArn=arn)
    with pytest.raises(sfn.client.exceptions.ExecutionDoesNotExist):
        sfn.client.describe_execution(executionArn=running)
    sfn.client.create_state_machine(definition=json.dumps(one(Type="Pass")), **settings)
    assert sfn.client.list_executions(stateMachineArn=arn)["executions"] == []
    again = sfn.client.start_execution(stateMachineArn=arn, name="n")["executionArn"]
    assert sfn.wait(again)["status"] == "SUCCEEDED"


def trial(sfn: Driver, state: dict[str, Any], value: Any = None, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = sfn.client.test_state(
        definition=json.dumps(state), roleArn=ROLE, input=json.dumps(value), **options
    )
    return answer


def test_a_state_is_tried_alone(sfn: Driver) -> None:
    good = trial(sfn, {"Type": "Pass", "Parameters": {"x.$": "$.a"}, "Next": "Later"}, {"a": 1})
    assert (good["status"], good["output"], good["nextState"]) == ("SUCCEEDED", '{"x":1}', "Later")
    jsonata = {"Type": "Pass", "QueryLanguage": "JSONata", "Output": "{% $v + 1 %}", "End": True}
    assert trial(sfn, jsonata, variables='{"v": 1}')["output"] == "2"
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:dynamodb:getItem",
        "Parameters": {"TableName": "none", "Key": {"id": {"S": "x"}}},
        "End": True,
    }
    failed = trial(sfn, task)
    assert (failed["status"], failed["error"]) == ("FAILED", "DynamoDb.ResourceNotFoundException")
    caught = trial(sfn, {**task, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Other"}]})
    assert (caught["status"], caught["nextState"]) == ("CAUGHT_ERROR", "Other")
    assert trial(sfn, {**task, "Retry": [{"ErrorEquals": ["States.ALL"]}]})["status"] == "RETRIABLE"
    with pytest.raises(sfn.client.exceptions.InvalidDefinition):
        trial(sfn, {"Type": "Pass", "Wrong": 1, "End": True})


def logged(server: Any, sfn: Driver, level: str, *, with_data: bool) -> list[dict[str, Any]]:
    """Run a machine that fails and return what its log group holds."""
    logs = server.client("logs")
    group = f"/aws/vendedlogs/states/{uuid.uuid4().hex}"
    logs.create_log_group(logGroupName=group)
    arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{group}:*"
    machine_arn = sfn.client.create_state_machine(
        name=f"m-{uuid.uuid4().hex}",
        definition=json.dumps(machine(A={"Type": "Pass"}, B={"Type": "Fail", "Error": "E"})),
        roleArn=ROLE,
        loggingConfiguration={
            "level": level,
            "includeExecutionData": with_data,
            "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": arn}}],
        },
    )["stateMachineArn"]
    execution = sfn.client.start_execution(stateMachineArn=machine_arn, input='{"a": 1}')["executionArn"]
    sfn.wait(execution)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        lines = logs.filter_log_events(logGroupName=group)["events"]
        found = [json.loads(line["message"]) for line in lines]
        if any(item["type"] == "ExecutionFailed" for item in found):
            assert {item["execution_arn"] for item in found} == {execution}
            return found
        time.sleep(0.05)
    raise AssertionError(f"the log group {group} has no ExecutionFailed")


def test_executions_are_logged(server: Any, sfn: Driver) -> None:
    lines = logged(server, sfn, "ALL", with_data=True)
    assert [line["type"] for line in lines] == [
        "ExecutionStarted",
        "PassStateEntered",
        "PassStateExited",
        "FailStateEntered",
        "ExecutionFailed",
    ]
    assert lines[0]["details"]["input"] == '{"a": 1}'
    assert (lines[1]["id"], lines[1]["previous_event_id"]) == ("2", "0")
    assert "input" not in logged(server, sfn, "ALL", with_data=False)[0]["details"]
    assert [line["type"] for line in logged(server, sfn, "ERROR", with_data=True)] == ["ExecutionFailed"]


def test_a_missing_log_group_does_not_fail_the_execution(sfn: Driver) -> None:
    arn = "arn:aws:logs:us-east-1:123456789012:log-group:none:*"
    machine_arn = sfn.client.create_state_machine(
        name=f"m-{uuid.uuid4().hex}",
        definition=json.dumps(one(Type="Pass")),
        roleArn=ROLE,
        loggingConfiguration={
            "level": "ALL",
            "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": arn}}],
        },
    )["stateMachineArn"]
    execution = sfn.client.start_execution(stateMachineArn=machine_arn)["executionArn"]
    assert sfn.wait(execution)["status"] == "SUCCEEDED"


@pytest.mark.parametrize(
    "definition",
    [
        one(Type="Task", Resource="arn:aws:states:::states:startExecution.sync", Parameters={}),
        one(Type="Task", Resource="arn:aws:states:us-east-1:123456789012:activity:a"),
        each(
            {
                "T": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
                    "End": True,
                }
            }
        ),
    ],
)
def test_an_express_machine_cannot_wait_for_others(sfn: Driver, definition: dict[str, Any]) -> None:
    with pytest.raises(sfn.client.exceptions.InvalidDefinition, match="Express"):
        sfn.create(definition, kind="EXPRESS")
    assert sfn.create(definition)
