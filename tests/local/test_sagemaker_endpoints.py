"""Endpoints of the embedded AWS: served by real processes, updated without a lost request, captured."""

from __future__ import annotations

import base64
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.lambda_runtime.identity import access_key_for
from tests.local.sagemaker_driver import (
    PROBE,
    REGISTRY,
    ROLE,
    Driver,
    alive,
    children_of,
    own_server,
    role,
    unique,
    wait_until,
)


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


def model(aws: Driver, image: str = PROBE, data: str | None = None, **content: Any) -> str:
    name = unique("model")
    url = data or aws.model_data(**{"answer": name, **content})
    aws.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image, "ModelDataUrl": url}
    )
    return name


def config(aws: Driver, model_name: str, instances: int = 1, **changes: Any) -> str:
    name = unique("config")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": model_name,
        "InitialInstanceCount": instances,
        "InstanceType": "ml.g4dn.xlarge",
        "InitialVariantWeight": 1.0,
        "ContainerStartupHealthCheckTimeoutInSeconds": 60,
    }
    aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **changes)
    return name


def settled(aws: Driver, name: str, seconds: float = 45) -> dict[str, Any]:
    def check() -> dict[str, Any] | None:
        body: dict[str, Any] = aws.sagemaker.describe_endpoint(EndpointName=name)
        return body if body["EndpointStatus"] in ("InService", "Failed") else None

    return wait_until(check, seconds, f"endpoint {name} to settle")


def create(aws: Driver, config_name: str) -> str:
    name = unique("endpoint")
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config_name)
    return name


@pytest.fixture
def endpoint(aws: Driver) -> Iterator[tuple[str, str]]:
    """An endpoint in service and the label that its model gives."""
    label = model(aws)
    name = create(aws, config(aws, label))
    assert settled(aws, name)["EndpointStatus"] == "InService"
    yield name, label
    remove(aws, name)


def remove(aws: Driver, name: str) -> None:
    settled(aws, name)
    aws.sagemaker.delete_endpoint(EndpointName=name)


def label_of(aws: Driver, name: str, body: bytes = b"\x89PNG") -> str:
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="image/png")
    return str(json.loads(answer["Body"].read())["label"])


def test_a_request_goes_through_unchanged(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, label = endpoint
    picture = bytes(range(256)) * 4
    answer = aws.runtime.invoke_endpoint(
        EndpointName=name, Body=picture, ContentType="image/png", CustomAttributes="trace=7"
    )
    body = json.loads(answer["Body"].read())
    assert body == {"label": label, "echo": base64.b64encode(picture).decode(), "kind": "image/png"}
    assert answer["ContentType"] == "application/json"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"] == "trace=7-seen"
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body=b"x", Accept="text/csv")
    assert (answer["ContentType"], answer["Body"].read()) == ("text/csv", b"1,2")


def test_errors_of_the_container_are_model_errors(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, _ = endpoint
    for body, status, text in ((b"wrong", 400, "no such picture"), (b"broken", 500, "out of order")):
        with pytest.raises(aws.runtime.exceptions.ModelError) as caught:
            aws.runtime.invoke_endpoint(EndpointName=name, Body=body)
        response = caught.value.response
        assert response["OriginalStatusCode"] == status
        assert response["OriginalMessage"] == text
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    with pytest.raises(ClientError, match="asynchronous"):
        aws.runtime.invoke_endpoint_async(EndpointName=name, InputLocation="s3://b/k")
    with pytest.raises(ClientError, match="Variant nobody"):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=b"x", TargetVariant="nobody")
    with pytest.raises(aws.runtime.exceptions.ValidationError, match="not found"):
        aws.runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    with pytest.raises(ClientError, match="exceeded the limit"):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=bytes(25 * 1024 * 1024 + 1))


def test_a_role_needs_the_right_to_invoke(aws: Driver, endpoint: tuple[str, str]) -> None:
    arn = role(aws, "s3:GetObject")
    runtime = boto3.client(
        "sagemaker-runtime",
        region_name="us-east-1",
        endpoint_url=aws.server.endpoint,
        aws_access_key_id=access_key_for(arn),
        aws_secret_access_key="x",
    )
    # The key counts once the server has given it out, which a job of the role makes it do.
    aws.train(RoleArn=arn)
    with pytest.raises(ClientError, match="sagemaker:InvokeEndpoint"):
        runtime.invoke_endpoint(EndpointName=endpoint[0], Body=b"x")


def test_a_crashed_container_is_started_again(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, label = endpoint
    with pytest.raises(aws.runtime.exceptions.ModelError):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=b"crash")

    def answers() -> bool:
        try:
            return label_of(aws, name) == label
        except aws.runtime.exceptions.ModelError:
            return False

    wait_until(answers, what="the restart")
    wait_until(
        lambda: any(
            "exit code 9" in line for line in aws.messages(f"/aws/sagemaker/Endpoints/{name}", "AllTraffic/")
        ),
        what="the log line about the restart",
    )


def test_requests_are_counted(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, _ = endpoint
    for _ in range(3):
        label_of(aws, name)
    with pytest.raises(ClientError):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=b"broken")
    configuration = aws.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]

    def statistics(metric: str, *more: tuple[str, str]) -> dict[str, Any] | None:
        dimensions = [("EndpointName", name), ("VariantName", "AllTraffic"), *more]
        found = aws.cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions],
            StartTime=time.time() - 600,
            EndTime=time.time() + 60,
            Period=3600,
            Statistics=["Sum", "Average"],
        )["Datapoints"]
        return found[0] if found and found[0]["Sum"] else None

    def four(*more: tuple[str, str]) -> bool:
        found = statistics("Invocations", *more)
        return bool(found and found["Sum"] == 4)

    wait_until(four, what="the metric")
    wait_until(lambda: four(("EndpointConfigName", configuration)), what="the metric")
    assert (statistics("Invocation5XXErrors") or {})["Average"] == 0.25
    latency = statistics("ModelLatency")
    assert latency is not None
    assert 50 < latency["Average"] < 5_000_000


def test_traffic_is_captured_in_sagemakers_format(aws: Driver) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": aws.uri("capture/"),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {
            "JsonContentTypes": ["application/json"],
            "CsvContentTypes": ["text/csv"],
        },
    }
    name = create(aws, config(aws, model(aws), DataCaptureConfig=capture))
    described = settled(aws, name)
    assert described["DataCaptureConfig"]["CaptureStatus"] == "Started"
    aws.runtime.invoke_endpoint(
        EndpointName=name, Body=b"\x89PNG\xff", ContentType="image/png", InferenceId="id-1"
    )
    aws.runtime.invoke_endpoint(EndpointName=name, Body=b"50,0\n", ContentType="text/csv", Accept="text/csv")
    with pytest.raises(ClientError):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=b"wrong")

    keys = wait_until(lambda: aws.keys(f"capture/{name}/"), what="the capture file")
    remove(aws, name)
    layout = rf"capture/{name}/AllTraffic/\d{{4}}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{{3}}-[0-9a-f-]{{36}}\.jsonl"
    assert all(re.fullmatch(layout, key) for key in keys)
    wait_until(
        lambda: sum(aws.get(aws.uri(k)).count(b"\n") for k in aws.keys(f"capture/{name}/")) >= 2,
        what="both records",
    )
    records = [
        json.loads(line)
        for key in aws.keys(f"capture/{name}/")
        for line in aws.get(aws.uri(key)).splitlines()
    ]
    assert len(records) == 2
    first, second = sorted(records, key=lambda r: r["captureData"]["endpointInput"]["observedContentType"])
    assert first["captureData"]["endpointInput"] == {
        "observedContentType": "image/png",
        "mode": "INPUT",
        "data": base64.b64encode(b"\x89PNG\xff").decode(),
        "encoding": "BASE64",
    }
    assert first["captureData"]["endpointOutput"]["encoding"] == "JSON"
    assert json.loads(first["captureData"]["endpointOutput"]["data"])["kind"] == "image/png"
    assert first["eventMetadata"]["inferenceId"] == "id-1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["eventMetadata"]["inferenceTime"])
    assert first["eventVersion"] == "0"
    assert second["captureData"]["endpointInput"]["encoding"] == "CSV"
    assert second["captureData"]["endpointInput"]["data"] == "50,0\n"
    assert second["captureData"]["endpointOutput"] == {
        "observedContentType": "text/csv",
        "mode": "OUTPUT",
        "data": "1,2",
        "encoding": "CSV",
    }
    assert "inferenceId" not in second["eventMetadata"]
    assert first["eventMetadata"]["eventId"] != second["eventMetadata"]["eventId"]


def test_an_update_under_load_loses_no_request(aws: Driver) -> None:
    collect = aws.watch("SageMaker Endpoint State Change")
    deployments = aws.watch("SageMaker Endpoint Deployment State Change")
    old, new = model(aws), model(aws)
    name = create(aws, config(aws, old))
    settled(aws, name)
    seen: list[str] = []
    failures: list[str] = []
    stop = threading.Event()

    def load(slow: bool) -> None:
        while not stop.is_set():
            try:
                seen.append(label_of(aws, name, b"slow" if slow else b"x"))
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=load, args=(slow,)) for slow in (False, False, True)]
    for thread in threads:
        thread.start()
    new_config = config(aws, new)
    deployment = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
            "TerminationWaitInSeconds": 1,
        }
    }
    aws.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=new_config, DeploymentConfig=deployment
    )
    pending = aws.sagemaker.describe_endpoint(EndpointName=name)
    assert pending["EndpointStatus"] == "Updating"
    assert pending["PendingDeploymentSummary"]["EndpointConfigName"] == new_config
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new_config)
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        aws.sagemaker.delete_endpoint(EndpointName=name)
    described = settled(aws, name)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == new_config
    assert "PendingDeploymentSummary" not in described
    assert described["LastDeploymentConfig"] == deployment
    assert {old, new} == set(seen)
    assert label_of(aws, name) == new

    arn = described["EndpointArn"]

    def statuses() -> list[str]:
        # A queue keeps no order; the events' own times do.
        details = [e["detail"] for e in collect() if e["resources"] == [arn]]
        return [d["EndpointStatus"] for d in sorted(details, key=lambda d: d["LastModifiedTime"])]

    expected = ["CREATING", "IN_SERVICE", "UPDATING", "IN_SERVICE"]
    wait_until(lambda: statuses() == expected, what=f"the events {expected}")
    variants = [
        e["detail"]["PendingDeploymentSummary"]["ProductionVariants"][0]["VariantStatus"][0]
        for e in deployments()
        if e["resources"] == [arn]
    ]
    phases = {v["Status"] for v in variants}
    assert phases == {"Creating", "ActivatingTraffic", "Baking", "Deleting"}
    remove(aws, name)
    wait_until(lambda: statuses() == [*expected, "DELETING", "DELETED"], what="the events of the end")
    with pytest.raises(ClientError, match="Could not find endpoint"):
        aws.sagemaker.describe_endpoint(EndpointName=name)


def alarm(aws: Driver, state: str) -> str:
    name = unique("alarm")
    aws.cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Test",
        MetricName=name,
        Period=3600,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
        Statistic="Sum",
        TreatMissingData="ignore",
    )
    aws.cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")
    return name


def policy(kind: str, wait: int, termination: int, *alarms: str, **size: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **size},
            "TerminationWaitInSeconds": termination,
        }
    }
    if alarms:
        body["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return body


def test_an_alarm_while_baking_takes_the_update_back(aws: Driver) -> None:
    old, new = model(aws), model(aws)
    first = config(aws, old)
    name = create(aws, first)
    settled(aws, name)
    watching = alarm(aws, "OK")
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=config(aws, new),
        DeploymentConfig=policy("ALL_AT_ONCE", 0, 60, watching),
    )
    wait_until(lambda: label_of(aws, name) == new, what="the new model")
    aws.cloudwatch.set_alarm_state(AlarmName=watching, StateValue="ALARM", StateReason="errors")
    described = settled(aws, name)
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == first
    assert watching in described["FailureReason"]
    assert label_of(aws, name) == old
    remove(aws, name)


def test_a_canary_gets_its_share_only_then_all(aws: Driver) -> None:
    old, new = model(aws), model(aws)
    name = create(aws, config(aws, old, instances=2))
    settled(aws, name)
    size = {"CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=config(aws, new, instances=2),
        DeploymentConfig=policy("CANARY", 5, 0, **size),
    )
    wait_until(lambda: label_of(aws, name) == new, what="the canary")
    # Every other request goes to either: the few seconds of the canary are enough for both on any machine.
    wait_until(lambda: label_of(aws, name) == old, what="the old instance beside it", pause=0.0)
    assert settled(aws, name)["EndpointStatus"] == "InService"
    assert {label_of(aws, name) for _ in range(5)} == {new}
    remove(aws, name)


def test_an_update_can_keep_the_variants_properties(aws: Driver) -> None:
    name = create(aws, config(aws, model(aws), instances=3))
    settled(aws, name)
    second = config(aws, model(aws), instances=1)
    aws.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=second, RetainAllVariantProperties=True
    )
    variant = settled(aws, name)["ProductionVariants"][0]
    assert (variant["VariantName"], variant["CurrentInstanceCount"]) == ("AllTraffic", 3)
    remove(aws, name)


def test_an_update_that_takes_too_long_is_taken_back(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, label = endpoint
    deployment = policy("ALL_AT_ONCE", 0, 60)
    deployment["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = 0  # the API's least is 600
    lax = aws.server.client("sagemaker", parameter_validation=False)
    lax.update_endpoint(
        EndpointName=name, EndpointConfigName=config(aws, model(aws)), DeploymentConfig=deployment
    )
    assert "exceeded MaximumExecutionTimeoutInSeconds" in settled(aws, name)["FailureReason"]
    assert label_of(aws, name) == label


def test_a_capture_that_cannot_be_written_disturbs_no_request(aws: Driver) -> None:
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://no-such-bucket/capture",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    label = model(aws)
    name = create(aws, config(aws, label, DataCaptureConfig=capture))
    settled(aws, name)
    assert {label_of(aws, name) for _ in range(101)} == {label}  # a full batch is written at once
    assert label_of(aws, name) == label
    remove(aws, name)
    bad = {**capture, "DestinationS3Uri": "here"}
    lax = aws.server.client("sagemaker", parameter_validation=False)
    variant = {"VariantName": "v", "ModelName": label, "InitialInstanceCount": 1, "InstanceType": "x"}
    with pytest.raises(ClientError, match="destinationS3Uri"):
        lax.create_endpoint_config(
            EndpointConfigName=unique("c"), ProductionVariants=[variant], DataCaptureConfig=bad
        )


def test_an_alarm_that_does_not_exist_takes_the_update_back(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, label = endpoint
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=config(aws, model(aws)),
        DeploymentConfig=policy("ALL_AT_ONCE", 0, 0, "nobody"),
    )
    assert "nobody of AutoRollbackConfiguration do not exist" in settled(aws, name)["FailureReason"]
    assert label_of(aws, name) == label


def test_an_update_to_a_sick_model_is_taken_back(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, label = endpoint
    notar = aws.put("notar/model.tar.gz", b"this is no archive")
    for bad, reason in (
        (model(aws, data=notar), "valid tar.gz archive"),
        (model(aws, image=f"{REGISTRY}/truthloop-nothing:1"), "image not found"),
    ):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config(aws, bad))
        described = settled(aws, name)
        assert described["EndpointStatus"] == "InService"
        assert reason in described["FailureReason"]
        assert label_of(aws, name) == label


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("notar", "valid tar.gz archive (file could not be opened successfully)."),
        ("missing", "No S3 objects"),
        ("crash", "ended with exit code 1"),
    ],
)
def test_an_endpoint_that_cannot_serve_fails(aws: Driver, kind: str, reason: str) -> None:
    data = {
        "notar": aws.put("x/model.tar.gz", b"nothing"),
        "missing": aws.uri("not/there.tar.gz"),
        "crash": aws.model_data(member="other.json"),
    }[kind]
    name = create(aws, config(aws, model(aws, data=data)))
    described = settled(aws, name)
    assert described["EndpointStatus"] == "Failed"
    assert reason in described["FailureReason"]
    with pytest.raises(ClientError, match="not found"):
        aws.runtime.invoke_endpoint(EndpointName=name, Body=b"x")
    with pytest.raises(ClientError, match="delete it and create it again"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config(aws, model(aws)))
    aws.sagemaker.delete_endpoint(EndpointName=name)


def test_a_sick_container_fails_and_a_killed_server_leaves_no_process() -> None:
    limits = {"TRUTHLOOP_HEALTH_CHECK_SECONDS": "8", "TRUTHLOOP_INVOCATION_SECONDS": "0.5"}
    with own_server(**limits) as (server, process):
        aws = Driver(server)
        healthy = create(aws, config(aws, model(aws)))
        sick = create(aws, config(aws, model(aws, sick=True)))
        assert settled(aws, healthy)["EndpointStatus"] == "InService"
        with pytest.raises(ClientError, match="timed out while waiting for a response"):
            aws.runtime.invoke_endpoint(EndpointName=healthy, Body=b"slow")
        described = settled(aws, sick)
        assert described["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check (the last answer was 500)" in described["FailureReason"]
        job = aws.train(wait=False, HyperParameters={"seconds": "600", "spawn": "1"})
        wait_until(lambda: len(children_of(process.pid)) >= 4, what="server, endpoint, job and its child")
        started = children_of(process.pid)
        assert job
        process.kill()
        process.wait()
        wait_until(lambda: not [pid for pid in started if alive(pid)], what="the end of every process")


def test_a_server_with_much_to_end_ends_at_once(tmp_path: Path) -> None:
    # Given endpoints, and a job with a child that ignores SIGTERM
    with own_server(TMPDIR=str(tmp_path)) as (server, process):
        aws = Driver(server)
        serving = [create(aws, config(aws, model(aws), instances=2)) for _ in range(2)]
        assert all(settled(aws, name)["EndpointStatus"] == "InService" for name in serving)
        before = len(children_of(process.pid))
        aws.train(wait=False, HyperParameters={"seconds": "600", "spawn": "1", "stubborn": "1"})
        wait_until(lambda: len(children_of(process.pid)) >= before + 2, what="the job and its child")
        started = children_of(process.pid)
        began = time.monotonic()

        # When
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)

        # Then: its threads must not go on looking after containers that it has just ended
        assert code == 0
        assert time.monotonic() - began < 8  # with them it took ten
        assert not [pid for pid in started if alive(pid)]
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (policy("CANARY", 0, 0, CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}), "only ALL_AT_ONCE"),
        (policy("LINEAR", 0, 0), "LinearStepSize is required"),
        (
            {
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
                    "WaitIntervalInSeconds": 0,
                }
            },
            "RollingUpdatePolicy",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    aws: Driver, endpoint: tuple[str, str], deployment: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        aws.sagemaker.update_endpoint(
            EndpointName=endpoint[0],
            EndpointConfigName=config(aws, model(aws)),
            DeploymentConfig=deployment,
        )


def test_names_that_do_not_exist_are_refused(aws: Driver, endpoint: tuple[str, str]) -> None:
    name, _ = endpoint
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="nobody")
    with pytest.raises(ClientError, match="already existing endpoint"):
        aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config(aws, model(aws)))
    with pytest.raises(ClientError, match="Could not find model"):
        config(aws, "nobody")
    current = aws.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    with pytest.raises(ClientError, match="already has"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=current)
