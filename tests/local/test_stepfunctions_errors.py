"""Failures: Fail, Retry, Catch, timeouts, heartbeats, aborts, and the interpreter's own."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tests.local.lambda_helpers import eventually
from tests.local.stepfunctions_driver import Driver, machine, one

MISSING: dict[str, Any] = {
    "Type": "Task",
    "Resource": "arn:aws:states:::aws-sdk:dynamodb:getItem",
    "Parameters": {"TableName": "absent", "Key": {"id": {"S": "x"}}},
}
MISSING_ERROR = "DynamoDb.ResourceNotFoundException"


@pytest.fixture(scope="module")
def sfn(server: Any) -> Driver:
    return Driver(server.client("stepfunctions"))


@pytest.mark.parametrize(
    ("language", "fields", "expected"),
    [
        ("JSONPath", {"Error": "Mine", "Cause": "because"}, ("Mine", "because")),
        ("JSONPath", {"ErrorPath": "$.e", "CausePath": "States.Format('of {}', $.c)"}, ("E1", "of C1")),
        (
            "JSONata",
            {"Error": "{% $states.input.e %}", "Cause": "{% 'x' & $states.input.c %}"},
            ("E1", "xC1"),
        ),
        ("JSONPath", {}, ("", "")),
    ],
)
def test_fail_names_error_and_cause(
    sfn: Driver, language: str, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert sfn.failure(one(language, Type="Fail", **fields), {"e": "E1", "c": "C1"}) == expected


def test_a_cause_that_is_no_string_fails(sfn: Driver) -> None:
    error, cause = sfn.failure(one("JSONata", Type="Fail", Error="{% 5 %}"))
    assert error == "States.Runtime"
    assert "must be a string" in cause


@pytest.mark.parametrize(
    "names", [["States.ALL"], ["States.TaskFailed"], [MISSING_ERROR], ["Other", MISSING_ERROR]]
)
def test_a_catcher_matches(sfn: Driver, names: list[str]) -> None:
    catch = [
        {"ErrorEquals": ["Unrelated"], "Next": "Lost"},
        {"ErrorEquals": names, "ResultPath": "$.error", "Next": "Done"},
    ]
    definition = machine(
        Ask={**MISSING, "Catch": catch, "Next": "Lost"}, Lost={"Type": "Fail"}, Done={"Type": "Succeed"}
    )
    result = sfn.output(definition, {"kept": 1})
    assert result["kept"] == 1
    assert result["error"]["Error"] == MISSING_ERROR
    assert "(Service: DynamoDb, Status Code: 400, Request ID: " in result["error"]["Cause"]


def test_no_catcher_matches(sfn: Driver) -> None:
    catch = [{"ErrorEquals": ["States.Timeout", "Mine"], "Next": "Done"}]
    definition = machine(Ask={**MISSING, "Catch": catch, "Next": "Done"}, Done={"Type": "Succeed"})
    assert sfn.failure(definition)[0] == MISSING_ERROR


def test_states_all_catches_no_runtime_error(sfn: Driver) -> None:
    state = {**MISSING, "InputPath": "$.absent", "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Done"}]}
    definition = machine(Ask={**state, "Next": "Done"}, Done={"Type": "Succeed"})
    assert sfn.failure(definition)[0] == "States.Runtime"


def test_retries_count_wait_and_end_in_the_catcher(sfn: Driver) -> None:
    retry = [
        {"ErrorEquals": ["Unrelated"], "MaxAttempts": 9},
        {
            "ErrorEquals": [MISSING_ERROR],
            "IntervalSeconds": 1,
            "MaxAttempts": 2,
            "BackoffRate": 100_000,
            "MaxDelaySeconds": 2,
            "JitterStrategy": "FULL",
        },
        {"ErrorEquals": ["States.ALL"], "MaxAttempts": 9},
    ]
    catch = [
        {"ErrorEquals": ["States.ALL"], "Next": "Done", "Output": "{% $states.context.State.RetryCount %}"}
    ]
    definition = machine(
        "JSONata",
        Ask={
            "Type": "Task",
            "Resource": MISSING["Resource"],
            "Arguments": MISSING["Parameters"],
            "Retry": retry,
            "Catch": catch,
            "Next": "Done",
        },
        Done={"Type": "Succeed"},
    )
    arn = sfn.start(definition)
    execution = sfn.wait(arn)
    assert (execution["status"], execution["output"]) == ("SUCCEEDED", "2")
    types = sfn.types(arn)
    assert types.count("TaskFailed") == types.count("TaskScheduled") == 3
    assert types.count("TaskStateEntered") == types.count("TaskStateExited") == 1
    assert (execution["stopDate"] - execution["startDate"]).total_seconds() < 30  # the longest delay counts


def test_a_retry_can_succeed(sfn: Driver, server: Any) -> None:
    dynamodb = server.client("dynamodb")
    late: dict[str, Any] = {**MISSING, "Parameters": {**MISSING["Parameters"], "TableName": "late"}}
    definition = one(
        **late,
        Retry=[
            {"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "BackoffRate": 1, "MaxAttempts": 9}
        ],
    )
    arn = sfn.start(definition)
    eventually(lambda: "TaskFailed" in sfn.types(arn))
    dynamodb.create_table(
        TableName="late",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    execution = sfn.wait(arn)
    assert (execution["status"], json.loads(execution["output"])) == ("SUCCEEDED", {})
    assert sfn.types(arn).count("TaskFailed") >= 1


def test_max_attempts_of_zero_never_retries(sfn: Driver) -> None:
    arn = sfn.start(one(**MISSING, Retry=[{"ErrorEquals": ["States.ALL"], "MaxAttempts": 0}]))
    assert sfn.wait(arn)["status"] == "FAILED"
    assert sfn.types(arn).count("TaskScheduled") == 1


def waiting(sfn: Driver, server: Any, **fields: Any) -> tuple[dict[str, Any], Any]:
    """Return a definition whose only task sends its token to a queue, and a function that receives it."""
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName=f"tokens-{time.time_ns()}")["QueueUrl"]
    definition = one(
        Type="Task",
        Resource="arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        Parameters={"QueueUrl": url, "MessageBody": {"token.$": "$$.Task.Token", "n": 1}},
        **fields,
    )

    def receive() -> str:
        messages = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
        return str(json.loads(messages[0]["Body"])["token"])

    return definition, receive


def test_a_task_token_returns_its_output(sfn: Driver, server: Any) -> None:
    definition, receive = waiting(sfn, server, ResultPath="$.r")
    arn = sfn.start(definition, {"kept": 1})
    token = receive()
    sfn.client.send_task_heartbeat(taskToken=token)
    sfn.client.send_task_success(taskToken=token, output='{"x": [1, null]}')
    assert json.loads(sfn.wait(arn)["output"]) == {"kept": 1, "r": {"x": [1, None]}}
    assert sfn.types(arn)[2:6] == ["TaskScheduled", "TaskStarted", "TaskSubmitted", "TaskSucceeded"]
    with pytest.raises(sfn.client.exceptions.TaskTimedOut):
        sfn.client.send_task_success(taskToken=token, output="{}")


def test_a_task_token_returns_a_failure(sfn: Driver, server: Any) -> None:
    definition, receive = waiting(sfn, server)
    arn = sfn.start(definition)
    token = receive()
    with pytest.raises(sfn.client.exceptions.InvalidOutput):
        sfn.client.send_task_success(taskToken=token, output="{no json")
    sfn.client.send_task_failure(taskToken=token, error="Mine", cause="so")
    execution = sfn.wait(arn)
    assert (execution["status"], execution["error"], execution["cause"]) == ("FAILED", "Mine", "so")
    assert "TaskFailed" in sfn.types(arn)


def test_an_unknown_token_is_refused(sfn: Driver) -> None:
    with pytest.raises(sfn.client.exceptions.InvalidToken):
        sfn.client.send_task_success(taskToken="nothing", output="{}")


def test_a_task_times_out(sfn: Driver, server: Any) -> None:
    cases: dict[str, tuple[dict[str, Any], Any]] = {
        "literal": ({"TimeoutSeconds": 1}, {}),
        "path": ({"TimeoutSecondsPath": "$.s"}, {"s": 1}),
        "heartbeat": ({"HeartbeatSeconds": 1}, {}),
        "heartbeat path": ({"HeartbeatSecondsPath": "$.s"}, {"s": 1}),
    }
    arns = {
        name: sfn.start(waiting(sfn, server, **fields)[0], value) for name, (fields, value) in cases.items()
    }
    for name, arn in arns.items():
        execution = sfn.wait(arn)
        assert (execution["status"], execution["error"]) == ("FAILED", "States.Timeout"), name
        assert 0.99 < (execution["stopDate"] - execution["startDate"]).total_seconds() < 30
        assert "TaskTimedOut" in sfn.types(arn)


def test_heartbeats_keep_a_task_alive(sfn: Driver, server: Any) -> None:
    definition, receive = waiting(sfn, server, HeartbeatSeconds=2)
    arn = sfn.start(definition)
    token = receive()
    for _ in range(5):
        time.sleep(0.5)
        sfn.client.send_task_heartbeat(taskToken=token)
    sfn.client.send_task_success(taskToken=token, output='"alive"')
    execution = sfn.wait(arn)
    assert (execution["status"], execution["output"]) == ("SUCCEEDED", '"alive"')
    assert (execution["stopDate"] - execution["startDate"]).total_seconds() > 2.4


@pytest.mark.parametrize("name", ["States.Timeout", "States.HeartbeatTimeout"])
def test_a_missed_heartbeat_is_caught_by_both_names(sfn: Driver, server: Any, name: str) -> None:
    definition, _ = waiting(sfn, server, HeartbeatSeconds=1, Catch=[{"ErrorEquals": [name], "Next": "Done"}])
    definition["States"]["Done"] = {"Type": "Pass", "Result": "caught", "End": True}
    assert sfn.output(definition) == "caught"


def test_task_failed_does_not_match_a_timeout(sfn: Driver, server: Any) -> None:
    catch = [{"ErrorEquals": ["States.TaskFailed"], "Next": "Done"}]
    definition, _ = waiting(sfn, server, TimeoutSeconds=1, Catch=catch)
    definition["States"]["Done"] = {"Type": "Succeed"}
    assert sfn.failure(definition)[0] == "States.Timeout"


def test_the_whole_machine_times_out(sfn: Driver) -> None:
    definition = {**one(Type="Wait", Seconds=600), "TimeoutSeconds": 1}
    arn = sfn.start(definition)
    execution = sfn.wait(arn)
    assert execution["status"] == "TIMED_OUT"
    assert "stopDate" in execution
    assert sfn.types(arn)[-1] == "ExecutionTimedOut"


def test_stopping_ends_a_wait_at_once(sfn: Driver) -> None:
    arn = sfn.start(one(Type="Wait", Seconds=600))
    started = time.monotonic()
    sfn.client.stop_execution(executionArn=arn, error="Enough", cause="done")
    execution = sfn.client.describe_execution(executionArn=arn)
    assert time.monotonic() - started < 60
    assert (execution["status"], execution["error"], execution["cause"]) == ("ABORTED", "Enough", "done")
    assert sfn.types(arn)[-1] == "ExecutionAborted"
    sfn.client.stop_execution(executionArn=arn)
    assert sfn.client.describe_execution(executionArn=arn)["error"] == "Enough"


def test_stopping_reaches_branches_and_waiting_tasks(sfn: Driver, server: Any) -> None:
    inner, receive = waiting(sfn, server)
    del inner["QueryLanguage"]
    branch = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": True}}}
    arn = sfn.start(
        one(
            Type="Parallel",
            Branches=[branch, {**inner, "StartAt": "T", "States": {"T": inner["States"]["Only"]}}],
        )
    )
    token = receive()
    sfn.client.stop_execution(executionArn=arn)
    assert sfn.client.describe_execution(executionArn=arn)["status"] == "ABORTED"
    with pytest.raises(sfn.client.exceptions.TaskTimedOut):
        sfn.client.send_task_success(taskToken=token, output="{}")


def test_a_hundred_executions_run_at_the_same_time(sfn: Driver) -> None:
    arn = sfn.create(one(Type="Wait", Seconds=1))
    started = time.monotonic()
    arns: list[str] = []
    lock = threading.Lock()

    def start(count: int) -> None:
        for _ in range(count):
            answer = sfn.client.start_execution(stateMachineArn=arn)
            with lock:
                arns.append(answer["executionArn"])

    threads = [threading.Thread(target=start, args=(25,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executions = [sfn.wait(arn) for arn in arns]
    assert len({execution["name"] for execution in executions}) == 100
    assert {execution["status"] for execution in executions} == {"SUCCEEDED"}
    lasted = max((item["stopDate"] - item["startDate"]).total_seconds() for item in executions)
    assert lasted < 20
    assert time.monotonic() - started < 60  # one after the other they would take 100


def test_endless_loops_end_at_the_event_quota() -> None:
    """In this process: 25,000 events over HTTP would take their time."""
    import asyncio

    from local.stepfunctions.execution import Execution
    from local.stepfunctions.machine import Machine
    from local.stepfunctions.running import run

    class Quiet:
        def announce(self, _: Execution) -> None: ...

    definition = machine(A={"Type": "Pass", "Next": "B"}, B={"Type": "Pass", "Next": "A"})
    about = Machine("arn:m", "m", definition, "arn:r", "STANDARD", "123456789012", "us-east-1")
    execution = Execution(Quiet(), about, "n", "arn:e", "{}")  # type: ignore[arg-type]
    asyncio.run(run(execution))
    assert (execution.status, execution.error) == ("FAILED", "States.Runtime")
    assert "25000" in str(execution.cause)
    assert len(execution.history.events) == 25_000


def test_a_bug_of_the_interpreter_fails_the_execution_loudly(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    from local.stepfunctions.execution import Execution
    from local.stepfunctions.machine import Machine
    from local.stepfunctions.running import run

    class Quiet:
        def announce(self, _: Execution) -> None: ...

    definition = {"StartAt": "A", "States": {"A": {"Type": "Choice", "Choices": [{"Variable": 5}]}}}
    about = Machine("arn:m", "m", definition, "arn:r", "STANDARD", "123456789012", "us-east-1")
    execution = Execution(Quiet(), about, "n", "arn:e", "{}")  # type: ignore[arg-type]
    asyncio.run(run(execution))
    assert (execution.status, execution.error) == ("FAILED", "States.Runtime")
    assert "Traceback" in caplog.text
    assert "arn:e" in caplog.text


def test_an_endless_expression_fails_instead_of_stopping_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from local.stepfunctions import jsonata
    from local.stepfunctions.errors import StateError

    endless = "{% ($f := function($n) { $f($n + 1) }; $f(1)) %}"
    with monkeypatch.context() as hasty:
        hasty.setattr(jsonata, "_LONGEST_EVALUATION_MS", 100)
        with pytest.raises(StateError, match="D1012"):
            jsonata.evaluate_field(endless, {}, "Output")
    assert jsonata.evaluate_field("{% 1 + 1 %}", {}, "Output") == 2


@pytest.mark.parametrize(("name", "caught"), [("States.ParameterPathFailure", True), ("States.ALL", False)])
def test_a_missing_parameter_is_caught_by_its_own_name_only(sfn: Driver, name: str, caught: bool) -> None:
    definition = machine(
        Call={
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:headBucket",
            "Parameters": {"Bucket.$": "$.none"},
            "Catch": [{"ErrorEquals": [name], "Next": "Done"}],
            "End": True,
        },
        Done={"Type": "Succeed"},
    )
    error = sfn.output(definition)["Error"] if caught else sfn.failure(definition)[0]
    assert error == "States.Runtime"
