"""Deploy is a reconciler: it converges from every state of the endpoint, and fails by name."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from truthloop.errors import (
    AwsRequestFailed,
    DeploymentRefused,
    EndpointBusy,
    InvalidEvent,
    ModelPackageInvalid,
    SmokeTestFailed,
    TransientAwsError,
)

ENDPOINT = "truthloop-endpoint"
MOMENT = 1795341600.0


def reconcile(world: Any) -> Any:
    return world.run("reconcile_endpoint", {"execution": "e"})


def state(status: str, config: str, pending: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "EndpointName": ENDPOINT,
        "EndpointArn": "arn",
        "EndpointConfigName": config,
        "EndpointStatus": status,
        "LastModifiedTime": datetime.fromtimestamp(MOMENT, UTC),
    }
    if pending:
        answer["PendingDeploymentSummary"] = {"EndpointConfigName": pending}
    return answer


def deployed(world: Any) -> Any:
    """Approve a package and create the endpoint with it."""
    world.register("g00000001", "new", "Approved")
    plan = reconcile(world)
    world.run("apply_deployment", plan)
    return plan


def test_nothing_approved_is_nothing_to_do(world: Any) -> None:
    world.register("g00000001", "new")
    plan = reconcile(world)
    assert (plan["action"], plan["desired"], plan["configName"]) == ("NONE", None, None)


def test_the_first_approval_creates_the_endpoint_with_capture(world: Any) -> None:
    # When
    asked = world.watch("sagemaker.CreateModel")
    plan = deployed(world)
    # Then
    assert plan["action"] == "CREATE"
    config = world.sagemaker.describe_endpoint_config(EndpointConfigName=plan["configName"])
    assert config["DataCaptureConfig"]["EnableCapture"] is True
    assert config["DataCaptureConfig"]["DestinationS3Uri"].endswith("/capture")
    assert config["ProductionVariants"][0]["ModelName"] == plan["modelName"]
    model = world.sagemaker.describe_model(ModelName=plan["modelName"])
    assert model["PrimaryContainer"]["ModelPackageName"] == plan["desired"]["modelPackageArn"]
    assert asked[0]["EnableNetworkIsolation"] is True  # moto forgets it


def test_what_was_never_tested_does_not_agree(world: Any) -> None:
    # Given: the machine was stopped between the update and the smoke test
    plan = deployed(world)
    # When: it looks again
    again = reconcile(world)
    # Then: it finds its deployment in service, tests it and agrees from then on
    assert (again["action"], again["configName"]) == ("UPDATE", plan["configName"])
    assert "never tested" in again["message"]
    updates = world.watch("sagemaker.UpdateEndpoint")
    assert world.run("apply_deployment", again)["configName"] == plan["configName"]
    assert updates == []
    world.run("finish_deployment", {**again, "succeeded": True, "message": "passed"})
    assert reconcile(world)["action"] == "NONE"


def test_applying_twice_is_applying_once(world: Any) -> None:
    plan = deployed(world)
    assert world.run("apply_deployment", plan)["configName"] == plan["configName"]


def test_two_names_for_two_settings(world: Any) -> None:
    plan = deployed(world)
    world.configure("DEPLOYMENT", instanceCount=2)
    changed = reconcile(world)
    assert changed["action"] == "UPDATE"
    assert changed["configName"] != plan["configName"]
    assert changed["modelName"] == plan["modelName"]


@pytest.mark.parametrize("count", [1, 2])
def test_an_update_always_carries_a_deployment_config(world: Any, count: int) -> None:
    deployed(world)
    world.configure("DEPLOYMENT", instanceCount=count)
    world.register("g00000002", "new", "Approved")
    plan = reconcile(world)
    assert (plan["action"], plan["desired"]["version"]) == ("UPDATE", 2)
    seen = world.answer("sagemaker.UpdateEndpoint", {"EndpointArn": "arn"})
    world.run("apply_deployment", plan)
    (request,) = seen
    policy = request["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["Type"] == ("CANARY" if count == 2 else "ALL_AT_ONCE")
    assert policy["TerminationWaitInSeconds"] == 600
    alarms = request["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert alarms == [{"AlarmName": "truthloop-5xx"}]
    assert "RetainAllVariantProperties" not in request


def test_rejecting_the_live_model_brings_the_previous_one_back(world: Any) -> None:
    first = deployed(world)
    second = world.register("g00000002", "new", "Approved")
    assert reconcile(world)["desired"]["version"] == 2
    world.sagemaker.update_model_package(ModelPackageArn=second, ModelApprovalStatus="Rejected")
    assert reconcile(world)["configName"] == first["configName"]


@pytest.mark.parametrize("status", ["Creating", "Updating", "RollingBack", "SystemUpdating", "Deleting"])
def test_an_endpoint_that_is_being_changed_is_waited_for(world: Any, status: str) -> None:
    world.register("g00000001", "new", "Approved")
    plan = reconcile(world)
    world.answer("sagemaker.DescribeEndpoint", state(status, "somebody-elses"))
    assert reconcile(world)["action"] == "WAIT"
    with pytest.raises(EndpointBusy):
        world.run("apply_deployment", plan)


def test_our_own_update_under_way_is_not_busy(world: Any) -> None:
    world.register("g00000001", "new", "Approved")
    plan = reconcile(world)
    world.answer("sagemaker.DescribeEndpoint", state("Updating", "before", pending=plan["configName"]))
    assert world.run("apply_deployment", plan)["configName"] == plan["configName"]


def test_a_refused_update_is_understood_by_describing(world: Any) -> None:
    deployed(world)
    world.register("g00000002", "new", "Approved")
    plan = reconcile(world)
    world.answer("sagemaker.UpdateEndpoint", {"Error": {"Code": "ValidationException"}}, status=400)
    in_service = state("InService", "before")
    # another deployment began between the look and the call
    world.answer("sagemaker.DescribeEndpoint", in_service, state("Updating", "before", pending="other"))
    with pytest.raises(EndpointBusy):
        world.run("apply_deployment", plan)


@pytest.mark.parametrize(
    ("after", "error"),
    [("before", DeploymentRefused), ("another", TransientAwsError)],
)
def test_a_refusal_is_the_packages_fault_only_when_the_endpoint_was_at_rest(
    world: Any, after: str, error: type[Exception]
) -> None:
    deployed(world)
    world.register("g00000002", "new", "Approved")
    plan = reconcile(world)
    world.answer("sagemaker.UpdateEndpoint", {"Error": {"Code": "ValidationException"}}, status=400)
    world.answer("sagemaker.DescribeEndpoint", state("InService", "before"), state("InService", after))
    with pytest.raises(error):
        world.run("apply_deployment", plan)


def test_an_update_whose_answer_was_lost_is_found(world: Any) -> None:
    deployed(world)
    world.register("g00000002", "new", "Approved")
    plan = reconcile(world)
    world.answer("sagemaker.UpdateEndpoint", {"Error": {"Code": "ValidationException"}}, status=400)
    updating = state("Updating", "before", pending=plan["configName"])
    world.answer("sagemaker.DescribeEndpoint", state("InService", "before"), updating)
    assert world.run("apply_deployment", plan)["configName"] == plan["configName"]


@pytest.mark.parametrize(("action", "exists"), [("CREATE", True), ("UPDATE", False)])
def test_a_plan_that_is_out_of_date_is_made_again(world: Any, action: str, exists: bool) -> None:
    if exists:
        deployed(world)
    world.register("g00000002", "new", "Approved")
    plan = reconcile(world)
    with pytest.raises(EndpointBusy, match="by now"):
        world.run("apply_deployment", {**plan, "action": action})


def test_an_endpoint_that_was_mended_meanwhile_is_not_deleted(world: Any) -> None:
    plan = deployed(world)
    with pytest.raises(EndpointBusy):
        world.run("apply_deployment", {**plan, "action": "RECREATE"})
    assert world.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService"


def test_a_package_that_sagemaker_finds_invalid_is_refused(world: Any) -> None:
    world.register("g00000001", "new", "Approved")
    plan = reconcile(world)
    world.fail("sagemaker.CreateModel", "ValidationException", times=5)
    with pytest.raises(DeploymentRefused, match="version 1: CreateModel failed"):
        world.run("apply_deployment", plan)


def test_a_broken_endpoint_is_deleted_then_created(world: Any) -> None:
    plan = deployed(world)
    broken = {**state("Failed", plan["configName"]), "FailureReason": "no capacity"}
    world.answer("sagemaker.DescribeEndpoint", broken)
    again = reconcile(world)
    assert again["action"] == "RECREATE"
    assert "no capacity" in again["message"]
    with pytest.raises(EndpointBusy, match="being deleted"):
        world.run("apply_deployment", again)
    world.unhook()
    assert reconcile(world)["action"] == "CREATE"


def test_an_action_that_is_none_is_not_applied(world: Any) -> None:
    with pytest.raises(InvalidEvent):
        world.run("apply_deployment", {"action": "NONE"})


def test_a_model_that_cannot_be_created_fails_by_code(world: Any) -> None:
    world.register("g00000001", "new", "Approved")
    plan = reconcile(world)
    world.fail("sagemaker.CreateModel", "AccessDeniedException", times=5)
    with pytest.raises(AwsRequestFailed, match="CreateModel failed with AccessDeniedException"):
        world.run("apply_deployment", plan)


def test_a_package_without_model_data_is_named(world: Any) -> None:
    arn = world.register("g00000001", "new", "Approved")
    world.answer(
        "sagemaker.DescribeModelPackage",
        {"ModelPackageArn": arn, "InferenceSpecification": {"Containers": []}},
    )
    with pytest.raises(ModelPackageInvalid, match="ModelDataUrl"):
        reconcile(world)


# -- smoke test --------------------------------------------------------------------------------------------


def answering(world: Any, *bodies: bytes) -> list[Any]:
    """Let the endpoint answer; returns what it was asked."""
    seen: list[Any] = []

    def hook(params: Any, **_: Any) -> Any:
        seen.append(params)
        body = bodies[min(len(seen), len(bodies)) - 1]
        parsed = {"Body": io.BytesIO(body), "ResponseMetadata": {"HTTPStatusCode": 200}}
        return AWSResponse("http://localhost", 200, HTTPHeaders(), io.BytesIO()), parsed

    world.hook("before-call.sagemaker-runtime.InvokeEndpoint", hook)
    return seen


def prediction(label: str) -> bytes:
    return json.dumps({"label": label, "score": 0.9}).encode()


@pytest.fixture
def serving(world: Any) -> Any:
    plan = deployed(world)
    for label in "123":
        for name in ("a", "b"):
            world.put(f"smoke-test/{label}/{name}.png", b"image")
    world.put("smoke-test/readme.txt", b"not an example")
    return {"endpointName": ENDPOINT, "configName": plan["configName"], "desired": plan["desired"]}


def test_five_known_examples_are_asked(world: Any, serving: Any) -> None:
    seen = answering(world, *map(prediction, ("1", "2", "3", "9", "2")))
    answer = world.run("smoke_test_endpoint", serving)
    assert answer["examples"] == len(seen) == 5
    assert seen[0]["headers"]["Content-Type"] == "image/png"


def test_half_wrong_is_too_wrong(world: Any, serving: Any) -> None:
    answering(world, *map(prediction, ("1", "2", "9", "9", "9")))
    with pytest.raises(SmokeTestFailed, match="only 2 of 5"):
        world.run("smoke_test_endpoint", serving)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"label": "1"}', b'{"label": 1, "score": 0.5}', b"\xff"]
)
def test_an_answer_that_is_no_prediction_fails(world: Any, serving: Any, body: bytes) -> None:
    answering(world, body)
    with pytest.raises(SmokeTestFailed, match=r"smoke-test/1/a\.png"):
        world.run("smoke_test_endpoint", serving)


def test_a_missing_permission_is_not_the_packages_fault(world: Any, serving: Any) -> None:
    world.answer("sagemaker-runtime.InvokeEndpoint", {"Error": {"Code": "AccessDeniedException"}}, status=403)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        world.run("smoke_test_endpoint", serving)


def test_a_refused_example_fails(world: Any, serving: Any) -> None:
    world.answer("sagemaker-runtime.InvokeEndpoint", {"Error": {"Code": "ModelError"}}, status=424)
    with pytest.raises(SmokeTestFailed, match="ModelError"):
        world.run("smoke_test_endpoint", serving)


def test_a_model_that_is_not_ready_is_asked_again(world: Any, serving: Any) -> None:
    world.answer(
        "sagemaker-runtime.InvokeEndpoint", {"Error": {"Code": "ModelNotReadyException"}}, status=429
    )
    with pytest.raises(TransientAwsError):
        world.run("smoke_test_endpoint", serving)


def test_a_rollback_fails_the_smoke_test(world: Any, serving: Any) -> None:
    with pytest.raises(SmokeTestFailed, match="should serve other"):
        world.run("smoke_test_endpoint", {**serving, "configName": "other"})


def test_without_examples_nothing_is_asked_and_that_is_said(world: Any) -> None:
    plan = deployed(world)
    answer = world.run("smoke_test_endpoint", plan)
    assert answer["examples"] == 0
    assert "no known examples" in answer["message"]


# -- finish ------------------------------------------------------------------------------------------------


def finish(world: Any, plan: Any, *, succeeded: bool, message: str = "") -> Any:
    event = {"desired": plan["desired"], "configName": plan["configName"]}
    return world.run("finish_deployment", {**event, "succeeded": succeeded, "message": message})


def test_a_deployment_is_recorded_once(world: Any) -> None:
    plan = deployed(world)
    answer = finish(world, plan, succeeded=True)
    assert answer == finish(world, plan, succeeded=True)
    assert answer["outcome"] == "DEPLOYED"
    (decision,) = world.decisions()
    assert (decision["outcome"], decision["generation"]) == ("DEPLOYED", "g00000001")


def test_a_failed_deployment_rejects_its_package_with_the_reason(world: Any) -> None:
    plan = deployed(world)
    answer = finish(world, plan, succeeded=False, message="only 2 of 5")
    assert answer == finish(world, plan, succeeded=False, message="only 2 of 5")
    assert answer == {"outcome": "REJECTED", "message": "Deployment failed: only 2 of 5"}
    package = world.sagemaker.describe_model_package(ModelPackageName=plan["desired"]["modelPackageArn"])
    assert package["ModelApprovalStatus"] == "Rejected"
    assert package["ApprovalDescription"] == "Deployment failed: only 2 of 5"
    assert len(world.decisions()) == 1


def test_a_decision_made_meanwhile_stands(world: Any) -> None:
    plan = deployed(world)
    arn = plan["desired"]["modelPackageArn"]
    world.sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Rejected", ApprovalDescription="not this one"
    )
    assert finish(world, plan, succeeded=False, message="x")["outcome"] == "SUPERSEDED"
    package = world.sagemaker.describe_model_package(ModelPackageName=arn)
    assert package["ApprovalDescription"] == "not this one"


# -- monitor -----------------------------------------------------------------------------------------------


def test_the_monitor_job_reads_the_window_and_is_the_same_again(world: Any) -> None:
    # Given
    hour = "capture/truthloop-endpoint/AllTraffic/2026/11"
    for part in ("21/09", "21/10", "22/09", "22/10"):
        world.put(f"{hour}/{part}/x.jsonl", b"{}")
    world.corrections({"i1": "7"})
    seen = world.watch("sagemaker.CreateProcessingJob")
    # When
    job = world.run("run_monitor", {"scheduledTime": "2026-11-22T10:00:00Z"})
    # Then
    assert world.run("run_monitor", {"scheduledTime": "2026-11-22T10:00:00Z"}) == job
    name = job["processingJobName"]
    captures = json.loads(world.get(f"monitoring/input/{name}/capture.manifest"))[1:]
    assert captures == [f"{hour}/21/10/x.jsonl", f"{hour}/22/09/x.jsonl"]
    request = seen[0]
    assert request["ProcessingJobName"] == name
    assert request["Environment"]["WINDOW_START"] == "2026-11-21T10:00:00.000000Z"
    assert request["Environment"]["MINIMUM_LABELS"] == "30"
    entrypoint = request["AppSpecification"]["ContainerEntrypoint"]
    assert entrypoint == ["python", "-m", "training", "monitor"]
    output = request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"]
    assert output.endswith(f"/monitoring/truthloop-endpoint/2026/11/22/10/{name}/")
    assert len(request["ProcessingInputs"]) == 2


def test_no_captured_data_is_said_and_starts_nothing(world: Any) -> None:
    answer = world.run("run_monitor", {})
    assert answer["status"] == "NoData"
    assert world.sagemaker.list_processing_jobs()["ProcessingJobSummaries"] == []


def test_a_job_that_cannot_start_fails_by_code(world: Any) -> None:
    world.put("capture/truthloop-endpoint/AllTraffic/2026/11/22/09/x.jsonl", b"{}")
    world.fail("sagemaker.CreateProcessingJob", "ValidationException", times=5)
    with pytest.raises(AwsRequestFailed, match="CreateProcessingJob"):
        world.run("run_monitor", {"start": "2026-11-22T09:00:00Z", "end": "2026-11-22T10:00:00Z"})


@pytest.mark.parametrize(
    "window",
    [
        {"start": "2026-11-22T09:00:00Z"},
        {"start": "b", "end": "a"},
        {"start": "2026-11-22", "end": "2026-11-22"},
    ],
)
def test_a_window_that_cannot_be_read_is_refused(world: Any, window: Any) -> None:
    with pytest.raises(InvalidEvent):
        world.run("run_monitor", window)
