"""Synchronous invocations: environment, results, errors, limits, logs, versions."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.lambda_runtime.identity import access_key_for
from tests.local.lambda_helpers import Functions, archive, eventually

FILE_SYSTEM = "arn:aws:elasticfilesystem:us-east-1:123456789012:access-point/fsap-0123456789abcdef0"
ENVIRONMENT = """
import os, sys
def lambda_handler(event, context):
    remaining = context.get_remaining_time_in_millis()
    try:
        import local
        repository = "importable"
    except ImportError:
        repository = "hidden"
    import boto3
    return {
        "environment": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "repository": repository,
        "context": [context.function_name, context.function_version, context.memory_limit_in_mb,
                    context.invoked_function_arn, context.aws_request_id, context.log_stream_name],
        "remaining": remaining,
        "client_context": context.client_context.custom if context.client_context else None,
    }
"""


@pytest.fixture(scope="module")
def functions(server: Any) -> Functions:
    return Functions(lambda service: server.client(service, retries={"total_max_attempts": 1}))


def test_the_environment_is_lambdas_and_the_repository_is_hidden(functions: Functions, server: Any) -> None:
    role = functions.role("role-of-the-environment-test")
    name = functions.create(
        ENVIRONMENT, Role=role, MemorySize=256, Timeout=60, Environment={"Variables": {"COLOUR": "blue"}}
    )
    context = base64.b64encode(json.dumps({"custom": {"who": "ann"}}).encode()).decode()

    seen = functions.invoke(name, ClientContext=context)

    environment = seen["environment"]
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert environment["_HANDLER"] == "app.lambda_handler"
    assert environment["LAMBDA_TASK_ROOT"] == seen["cwd"] == seen["path"][0]
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == name
    assert environment["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == f"/aws/lambda/{name}"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "us-east-1"
    assert environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.13"
    assert environment["AWS_ENDPOINT_URL"] == server.endpoint
    assert environment["AWS_ACCESS_KEY_ID"] == access_key_for(role)
    assert environment["TZ"] == ":UTC"
    assert environment["COLOUR"] == "blue"
    assert environment["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert seen["repository"] == "hidden"
    assert seen["context"][:4] == [name, "$LATEST", "256", arn]
    assert seen["context"][5] == environment["AWS_LAMBDA_LOG_STREAM_NAME"]
    assert 50_000 < seen["remaining"] <= 60_000
    assert seen["client_context"] == {"who": "ann"}


def test_code_calls_the_local_aws_without_being_told(functions: Functions) -> None:
    source = """
import boto3
def lambda_handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket=event["bucket"], Key="a/b.txt", Body=b"hello")
    return s3.get_object(Bucket=event["bucket"], Key="a/b.txt")["Body"].read().decode()
"""
    functions.client("s3").create_bucket(Bucket="bucket-of-the-lambda-test")

    assert (
        functions.invoke(functions.create(source, Timeout=30), {"bucket": "bucket-of-the-lambda-test"})
        == "hello"
    )


def test_layers_are_merged_in_order_and_the_code_comes_first(functions: Functions) -> None:
    def layer(name: str, files: dict[str, str]) -> str:
        answer = functions.api.publish_layer_version(LayerName=name, Content={"ZipFile": archive(files)})
        return str(answer["LayerVersionArn"])

    below = layer("below", {"python/shared.py": "WHO = 'below'", "python/low.py": "WHO = 'below'"})
    above = layer(
        "above",
        {
            "python/shared.py": "WHO = 'above'",
            "python/lib/python3.13/site-packages/packaged.py": "WHO = 'packaged'",
            "python/mine.py": "WHO = 'layer'",
        },
    )
    source = """
import low, mine, packaged, shared
def lambda_handler(event, context):
    return [low.WHO, mine.WHO, packaged.WHO, shared.WHO]
"""
    name = functions.create(source, {"mine.py": "WHO = 'function'"}, Layers=[below, above])

    assert functions.invoke(name) == ["below", "function", "packaged", "above"]


def test_the_task_root_is_read_only_and_tmp_is_the_workers_own(functions: Functions) -> None:
    source = """
import os, stat, tempfile
def lambda_handler(event, context):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("x")
    modes = [stat.S_IMODE(os.stat(path).st_mode) & 0o222 for path in (".", "app.py")]
    return {"modes": modes, "tmp": tempfile.gettempdir(), "home": os.path.expanduser("~")}
"""
    one, other = (functions.invoke(functions.create(source)) for _ in range(2))

    assert one["modes"] == [0, 0]
    assert one["tmp"] == one["home"]
    assert one["tmp"] != other["tmp"]


def test_an_exception_gives_the_error_document_and_a_log(functions: Functions) -> None:
    name = functions.create("def lambda_handler(event, context):\n    raise ValueError('no such label')")

    answer = functions.api.invoke(FunctionName=name, LogType="Tail")
    error = json.loads(answer["Payload"].read())
    tail = base64.b64decode(answer["LogResult"]).decode()

    assert answer["FunctionError"] == "Unhandled"
    assert answer["ExecutedVersion"] == "$LATEST"
    assert error["errorType"] == "ValueError"
    assert error["errorMessage"] == "no such label"
    assert error["requestId"] == answer["ResponseMetadata"]["RequestId"]
    assert "raise ValueError" in error["stackTrace"][-1]
    assert "[ERROR] ValueError: no such label\nTraceback" in tail
    assert functions.fail(name)["errorType"] == "ValueError"  # and the worker goes on


def test_the_log_has_the_platforms_lines_around_the_functions(functions: Functions) -> None:
    source = """
import logging
logging.getLogger().setLevel("INFO")
def lambda_handler(event, context):
    print("printed")
    logging.info("first line\\nsecond line")
    print("without a newline", end="")
"""
    name = functions.create(source)
    functions.invoke(name)
    functions.invoke(name)

    log = functions.log(name)
    kinds = [line.split(" ")[0].split("\t")[0].strip() for line in log]
    assert kinds[:2] == ["INIT_START", "START"]
    assert sorted(kinds[2:5]) == ["[INFO]", "printed", "without"]  # print and logging are two pipes
    assert kinds[5:8] == ["END", "REPORT", "START"]
    assert len(kinds) == 13
    assert sum(line.endswith("first line\nsecond line\n") for line in log) == 2
    assert "Init Duration: " in log[6]
    assert "Init Duration: " not in log[12]
    assert "Max Memory Used: " in log[12]


def test_json_logging_reaches_the_runtime_and_the_platform(functions: Functions) -> None:
    source = """
import logging
def lambda_handler(event, context):
    logging.getLogger().info("seen")
    logging.getLogger().debug("unseen")
"""
    config = {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "LogGroup": "/group/of-the-json-test"}
    name = functions.create(source, LoggingConfig=config)
    functions.invoke(name)

    events = functions.client("logs").filter_log_events(logGroupName="/group/of-the-json-test")["events"]
    records = [json.loads(event["message"]) for event in events]
    kinds = [record.get("type") or record["message"] for record in records]
    assert kinds == ["platform.initStart", "platform.start", "seen", "platform.report"]
    assert records[-1]["record"]["status"] == "success"
    stored = functions.api.get_function_configuration(FunctionName=name)["LoggingConfig"]
    assert stored == config

    functions.api.update_function_configuration(
        FunctionName=name, LoggingConfig=config | {"SystemLogLevel": "WARN"}
    )
    functions.invoke(name)
    events = functions.client("logs").filter_log_events(logGroupName="/group/of-the-json-test")["events"]
    assert len(events) == 5  # only what the function logs itself


def test_a_timeout_kills_the_worker_and_the_next_call_gets_another(functions: Functions) -> None:
    source = """
import os, time
def lambda_handler(event, context):
    if event: time.sleep(300)
    return os.getpid()
"""
    name = functions.create(source, Timeout=1)
    before = functions.invoke(name)
    started = time.monotonic()

    error = functions.fail(name, True)

    assert time.monotonic() - started < 100
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    assert functions.invoke(name) != before
    log = "".join(functions.log(name))
    assert "Task timed out after 1.00 seconds" in log
    assert "Status: timeout" in log


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("sys.exit(0)", "Runtime exited without providing a reason"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: kill"),
    ],
)
def test_an_exit_during_the_invocation_is_an_exit_error(
    functions: Functions, statement: str, reason: str
) -> None:
    name = functions.create(
        f"import os, sys\ndef lambda_handler(event, context):\n    print('bye')\n    {statement}"
    )

    error = functions.fail(name)

    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith(reason)
    assert "bye\n" in functions.log(name)


@pytest.mark.parametrize(
    ("source", "handler", "kind", "message"),
    [
        ("import missing", "app.lambda_handler", "Runtime.ImportModuleError", "No module named 'missing'"),
        ("def f(:", "app.lambda_handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        ("", "app.lambda_handler", "Runtime.HandlerNotFound", "Handler 'lambda_handler' missing"),
        ("raise OSError('no disk')", "app.lambda_handler", "OSError", "no disk"),
        ("import os; os._exit(4)", "app.lambda_handler", "Runtime.ExitError", "exit status 4"),
    ],
)
def test_what_fails_in_the_init_phase(
    functions: Functions, source: str, handler: str, kind: str, message: str
) -> None:
    name = functions.create(source, Handler=handler)

    error = functions.fail(name)

    assert error["errorType"] == kind
    assert message in error["errorMessage"]
    assert any(line.startswith("INIT_REPORT") and "Status: error" in line for line in functions.log(name))


def test_payloads_over_the_limits_are_refused(functions: Functions) -> None:
    name = functions.create("def lambda_handler(event, context):\n    return 'x' * event['size']")
    too_large = json.dumps("x" * (6 * 1024 * 1024)).encode()

    with pytest.raises(ClientError) as refused:
        functions.api.invoke(FunctionName=name, Payload=too_large)
    assert refused.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    with pytest.raises(ClientError, match="smaller than 1048576 bytes"):
        functions.api.invoke(FunctionName=name, InvocationType="Event", Payload=too_large[:1_100_000])
    error = functions.fail(name, {"size": 6 * 1024 * 1024 + 1})
    assert error["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(functions.invoke(name, {"size": 6_200_000})) == 6_200_000


def test_a_payload_that_is_no_json_is_refused(functions: Functions) -> None:
    with pytest.raises(ClientError) as refused:
        functions.api.invoke(FunctionName=functions.create(), Payload=b"{not json")
    assert refused.value.response["Error"]["Code"] == "InvalidRequestContentException"


def test_dry_run_checks_and_runs_nothing(functions: Functions) -> None:
    name = functions.create()
    assert functions.api.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(functions.api.exceptions.ResourceNotFoundException):
        functions.api.invoke(FunctionName="missing", InvocationType="DryRun")


def test_updates_retire_the_old_workers(functions: Functions) -> None:
    source = (
        "import os\ndef lambda_handler(event, context):\n    return [os.getpid(), os.environ.get('A'), {}]"
    )
    name = functions.create(source.format(1))
    first, again = functions.invoke(name), functions.invoke(name)

    functions.api.update_function_configuration(FunctionName=name, Environment={"Variables": {"A": "b"}})
    configured = functions.invoke(name)
    functions.api.update_function_code(FunctionName=name, ZipFile=archive({"app.py": source.format(2)}))
    coded = functions.invoke(name)

    assert first == again
    assert configured[1:] == ["b", 1]
    assert coded[1:] == ["b", 2]
    assert len({first[0], configured[0], coded[0]}) == 3


def test_versions_and_aliases_run_what_they_name(functions: Functions) -> None:
    source = """
def lambda_handler(event, context):
    return [{}, context.function_version, context.invoked_function_arn.split(":")[7:]]
"""
    name = functions.create(source.format("'old'"))
    version = functions.api.publish_version(FunctionName=name)["Version"]
    functions.api.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
    functions.api.update_function_code(FunctionName=name, ZipFile=archive({"app.py": source.format("'new'")}))

    arn = functions.api.get_function_configuration(FunctionName=name)["FunctionArn"]
    assert functions.invoke(name) == ["new", "$LATEST", []]
    assert functions.invoke(name, Qualifier=version) == ["old", version, [version]]
    assert functions.invoke(name, Qualifier="live") == ["old", version, ["live"]]
    assert functions.invoke(f"{arn}:live") == ["old", version, ["live"]]
    with pytest.raises(functions.api.exceptions.ResourceNotFoundException):
        functions.api.invoke(FunctionName=name, Qualifier="missing")


def test_reserved_concurrency_throttles(functions: Functions, tmp_path: Path) -> None:
    name = functions.create(
        "import os, time\ndef lambda_handler(event, context):\n"
        "    while event and not os.path.exists(event): time.sleep(0.02)\n    return 1",
        Timeout=60,
    )
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    functions.invoke(name)

    def throttled(until: str = "") -> Any:
        try:
            functions.invoke(name, until)
        except functions.api.exceptions.TooManyRequestsException as error:
            return error.response
        return None

    until = tmp_path / "seen"
    slow = threading.Thread(target=eventually, args=(lambda: not throttled(str(until)),))
    slow.start()
    response = eventually(throttled)
    until.touch()
    slow.join()
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert functions.invoke(name) == 1
    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert throttled()


def test_concurrent_calls_get_workers_of_their_own(functions: Functions) -> None:
    source = (
        "import os, time\ndef lambda_handler(event, context):\n    time.sleep(1.5)\n    return os.getpid()"
    )
    name = functions.create(source)
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(functions.invoke(name))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pids)) == 4


@pytest.mark.parametrize(
    ("properties", "what"),
    [
        ({"Runtime": "nodejs22.x"}, "the runtime nodejs22.x"),
        ({"FileSystemConfigs": [{"Arn": FILE_SYSTEM, "LocalMountPath": "/mnt/x"}]}, "FileSystemConfigs"),
        ({"SnapStart": {"ApplyOn": "PublishedVersions"}}, "SnapStart"),
        ({"Timeout": 901}, "Value '901' at 'timeout' failed to satisfy constraint"),
        ({"MemorySize": 10241}, "value between 128 and 10240"),
        ({"Environment": {"Variables": {"AWS_REGION": "eu-west-1"}}}, "reserved keys"),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:s3:::bucket"}}, "neither an SQS queue"),
    ],
)
def test_what_is_missing_or_invalid_is_refused_at_creation(
    functions: Functions, properties: dict[str, Any], what: str
) -> None:
    with pytest.raises(ClientError, match=what) as refused:
        functions.create(**properties)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"


def test_function_urls_are_refused(functions: Functions) -> None:
    with pytest.raises(ClientError, match="does not emulate function URLs"):
        functions.api.create_function_url_config(FunctionName=functions.create(), AuthType="NONE")


def test_a_damaged_zip_is_refused_and_the_old_code_stays(functions: Functions) -> None:
    name = functions.create()
    with pytest.raises(ClientError, match="Could not unzip uploaded file"):
        functions.create(Code={"ZipFile": b"no zip"})
    with pytest.raises(ClientError, match="Could not unzip uploaded file"):
        functions.api.update_function_code(FunctionName=name, ZipFile=b"no zip")
    assert functions.invoke(name, 7) == 7


def test_the_deprecated_operation_is_refused(functions: Functions) -> None:
    with pytest.raises(ClientError, match="InvokeAsync"):
        functions.api.invoke_async(FunctionName=functions.create(), InvokeArgs=b"{}")


def test_updates_of_what_moto_forgets_are_kept(functions: Functions) -> None:
    name = functions.create()
    changes = {"TracingConfig": {"Mode": "Active"}, "EphemeralStorage": {"Size": 1024}, "Description": "d"}
    functions.api.update_function_configuration(FunctionName=name, **changes)
    config = functions.api.get_function_configuration(FunctionName=name)
    assert {key: config[key] for key in changes} == changes
    source = "import os\ndef lambda_handler(event, context):\n    return os.environ['_X_AMZN_TRACE_ID']"
    functions.api.update_function_code(FunctionName=name, ZipFile=archive({"app.py": source}))
    assert functions.invoke(name).endswith("Sampled=1")


def test_a_refused_update_changes_nothing(functions: Functions) -> None:
    name = functions.create()
    before = functions.api.get_function_configuration(FunctionName=name)
    for changes in (
        {"Runtime": "nodejs22.x", "Description": "new"},
        {"Description": "new", "Environment": {"Variables": {"AWS_REGION": "eu-west-1"}}},
    ):
        with pytest.raises(functions.api.exceptions.InvalidParameterValueException):
            functions.api.update_function_configuration(FunctionName=name, **changes)
    after = functions.api.get_function_configuration(FunctionName=name)
    assert {key: after[key] for key in ("Runtime", "Description")} == {
        key: before[key] for key in ("Runtime", "Description")
    }
    assert functions.invoke(name, 1) == 1
