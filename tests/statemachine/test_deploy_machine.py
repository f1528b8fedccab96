"""Every path of the deploy machine, taken by the shipped definition on the embedded Step Functions."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.local.sagemaker_driver import PROBE
from tests.statemachine import machines
from tests.statemachine.stage import (
    BROKEN_CONFIG,
    BROKEN_ENDPOINT,
    DIES,
    EXECUTION,
    HANGS,
    LIVE_CONFIG,
    LIVE_ENDPOINT,
    SCENARIO,
    STARTING_CONFIG,
    STARTING_ENDPOINT,
    Played,
    Plays,
    Scene,
    Script,
    breaches,
    raises,
    registrar,
)

MACHINE = "deploy"
SCENARIOS: dict[str, Script] = {}
scenario = registrar(SCENARIOS)

PACKAGE = {
    "modelPackageArn": f"arn:aws:sagemaker:us-east-1:123456789012:model-package/{SCENARIO}/7",
    "version": 7,
}
SMOKE = {"examples": 5, "latencyMs": 12, "message": "5 of 5 known examples were labelled rightly."}
THROTTLED = raises("TransientAwsError", "SageMaker throttled the request.")
REFUSED = raises("AwsRequestFailed", "DescribeEndpoint failed with AccessDenied: not allowed")
STOPPED = "truthloop: the deployment stopped"
LINE = ["reconcile_endpoint", "apply_deployment", "smoke_test_endpoint", "finish_deployment"]


def plan(action: str, endpoint: str = LIVE_ENDPOINT, config: str = LIVE_CONFIG) -> dict[str, Any]:
    return {
        "action": action,
        "endpointName": endpoint,
        "desired": PACKAGE,
        "modelName": config,
        "configName": config,
        "message": f"The next step is {action}.",
    }


def applied(endpoint: str = LIVE_ENDPOINT, config: str = LIVE_CONFIG) -> dict[str, Any]:
    return {"endpointName": endpoint, "configName": config}


def finished(outcome: str, message: str = "Version 7 is done with.") -> dict[str, Any]:
    return {"outcome": outcome, "message": message}


def verdict(run: Played) -> tuple[bool, str]:
    """Return what finish_deployment was told, once, about the package."""
    (given,) = run.inputs("finish_deployment")
    assert set(given) == {"desired", "configName", "succeeded", "message"}
    assert given["desired"] == PACKAGE
    return given["succeeded"], given["message"]


def stopped(run: Played, *words: str) -> None:
    """The machine failed visibly, in words, and judged no package."""
    assert (run.status, run.error) == ("FAILED", "DeploymentStopped")
    assert "finish_deployment" not in run.called
    assert run.notices == [(STOPPED, run.cause)]
    for word in words:
        assert word in run.cause


NOTHING: dict[str, Any] = {
    "action": "NONE",
    "endpointName": LIVE_ENDPOINT,
    "desired": None,
    "modelName": None,
    "configName": None,
    "message": "No package is approved.",
}


@scenario(reconcile_endpoint=[NOTHING])
def test_agreement_ends_the_machine(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.calls == [("reconcile_endpoint", {"execution": EXECUTION})]
    assert run.notices == []


@scenario(reconcile_endpoint=[plan("WAIT"), plan("NONE")])
def test_a_change_by_somebody_else_is_waited_for(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.called == ["reconcile_endpoint"] * 2
    assert run.notices == []


@scenario(
    reconcile_endpoint=[plan("UPDATE"), plan("NONE")],
    apply_deployment=[applied()],
    smoke_test_endpoint=[SMOKE],
    finish_deployment=[finished("DEPLOYED")],
)
def test_an_update_is_tested_finished_told_and_looked_at_again(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    message = "Serves version 7; the smoke test passed on 5 known examples."
    assert run.calls == [
        ("reconcile_endpoint", {"execution": EXECUTION}),
        ("apply_deployment", plan("UPDATE")),
        ("smoke_test_endpoint", {**applied(), "desired": PACKAGE}),
        (
            "finish_deployment",
            {"desired": PACKAGE, "configName": LIVE_CONFIG, "succeeded": True, "message": message},
        ),
        ("reconcile_endpoint", {"execution": EXECUTION}),
    ]
    assert run.notices == [("truthloop: deployment of version 7 DEPLOYED", "Version 7 is done with.")]


def create_endpoint(scene: Scene) -> None:
    """Begin with an endpoint that comes into service when the file of this name appears."""
    config = scene.stage.configuration(PROBE, until=str(scene.file))
    scene.names |= {STARTING_CONFIG: config, STARTING_ENDPOINT: scene.stage.create_endpoint(config)}


def let_it_serve(scene: Scene) -> None:
    scene.wait_for_state("CheckEndpoint")
    scene.file.touch()


@scenario(
    prepare=create_endpoint,
    during=let_it_serve,
    reconcile_endpoint=[plan("CREATE", STARTING_ENDPOINT, STARTING_CONFIG), plan("NONE")],
    apply_deployment=[applied(STARTING_ENDPOINT, STARTING_CONFIG)],
    smoke_test_endpoint=[SMOKE],
    finish_deployment=[finished("DEPLOYED")],
)
def test_an_endpoint_that_is_created_is_polled_until_it_is_in_service(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.states.count("DescribeEndpoint") >= 2
    assert run.inputs("smoke_test_endpoint") == [
        {**applied(STARTING_ENDPOINT, STARTING_CONFIG), "desired": PACKAGE}
    ]
    assert verdict(run)[0]


@scenario(
    reconcile_endpoint=[plan("RECREATE"), plan("NONE")],
    apply_deployment=[raises("EndpointBusy", "The endpoint is being deleted.")],
)
def test_a_busy_endpoint_is_waited_for_and_compared_again(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.called == ["reconcile_endpoint", "apply_deployment", "reconcile_endpoint"]
    assert run.states[2:5] == ["ApplyDeployment", "WaitForEndpoint", "Reconcile"]
    assert run.notices == []


@scenario(
    reconcile_endpoint=[plan("UPDATE"), plan("NONE")],
    apply_deployment=[raises("DeploymentRefused", "The package names no image.")],
    finish_deployment=[finished("REJECTED", "Version 7 is rejected: the package names no image.")],
)
def test_a_package_that_sagemaker_refuses_is_rejected_with_its_reason(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert verdict(run) == (False, "The package names no image.")
    assert run.notices == [
        (
            "truthloop: deployment of version 7 REJECTED",
            "Version 7 is rejected: the package names no image.",
        )
    ]


@scenario(
    reconcile_endpoint=[plan("UPDATE", config="config-of-7"), plan("NONE")],
    apply_deployment=[applied(config="config-of-7")],
    finish_deployment=[finished("REJECTED")],
)
def test_a_rollback_rejects_the_package(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    succeeded, message = verdict(run)
    assert not succeeded
    assert message == (
        f"The endpoint is InService with {LIVE_CONFIG} instead of config-of-7: "
        "the update was rolled back or failed (no reason given)."
    )
    assert "smoke_test_endpoint" not in run.called


@scenario(
    reconcile_endpoint=[plan("CREATE", BROKEN_ENDPOINT, BROKEN_CONFIG), plan("NONE")],
    apply_deployment=[applied(BROKEN_ENDPOINT, BROKEN_CONFIG)],
    finish_deployment=[finished("REJECTED")],
)
def test_an_endpoint_that_fails_rejects_the_package_with_the_reason(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    succeeded, message = verdict(run)
    assert not succeeded
    assert message.startswith(f"The endpoint is Failed with {BROKEN_CONFIG}")
    assert "no reason given" not in message


@scenario(
    reconcile_endpoint=[plan("UPDATE"), plan("NONE")],
    apply_deployment=[applied()],
    smoke_test_endpoint=[raises("SmokeTestFailed", "4 of 5 known examples were labelled wrongly.")],
    finish_deployment=[finished("REJECTED")],
)
def test_a_failed_smoke_test_rejects_the_package(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert verdict(run) == (False, "The smoke test failed: 4 of 5 known examples were labelled wrongly.")


@scenario(
    reconcile_endpoint=[plan("UPDATE"), plan("UPDATE"), plan("NONE")],
    apply_deployment=[applied(), applied()],
    smoke_test_endpoint=[SMOKE, raises("SmokeTestFailed", "wrong")],
    finish_deployment=[finished("SUPERSEDED"), finished("REJECTED")],
)
def test_a_second_round_does_not_remember_the_first_ones_success(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert [given["succeeded"] for given in run.inputs("finish_deployment")] == [True, False]
    assert [subject for subject, _ in run.notices] == [
        "truthloop: deployment of version 7 SUPERSEDED",
        "truthloop: deployment of version 7 REJECTED",
    ]


@scenario(
    reconcile_endpoint=[DIES, plan("UPDATE"), HANGS, plan("NONE")],
    apply_deployment=[DIES, applied()],
    smoke_test_endpoint=[THROTTLED, SMOKE],
    finish_deployment=[DIES, finished("DEPLOYED")],
)
def test_what_fails_for_a_moment_is_tried_again(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.called == [name for name in LINE for _ in range(2)] + ["reconcile_endpoint"] * 2
    assert run.inputs("smoke_test_endpoint") == [{**applied(), "desired": PACKAGE}] * 2
    first, again = run.inputs("finish_deployment")
    assert first == again


@scenario(reconcile_endpoint=[REFUSED])
def test_no_comparison_stops_the_machine(run: Played) -> None:
    stopped(
        run,
        "The endpoint could not be compared with the registry: AwsRequestFailed: "
        "DescribeEndpoint failed with AccessDenied: not allowed",
    )


@scenario(reconcile_endpoint=[THROTTLED] * 3)
def test_an_error_that_no_retry_mends_stops_the_machine(run: Played) -> None:
    stopped(run, "TransientAwsError: SageMaker throttled the request.")
    assert run.called == ["reconcile_endpoint"] * 3


@scenario(reconcile_endpoint=[plan("UPDATE")], apply_deployment=[REFUSED])
def test_an_infrastructure_error_while_applying_rejects_nothing(run: Played) -> None:
    stopped(run, "The deployment could not be applied: AwsRequestFailed: ")


@scenario(
    reconcile_endpoint=[plan("UPDATE", endpoint="no-such-endpoint")],
    apply_deployment=[applied(endpoint="no-such-endpoint")],
)
def test_an_endpoint_that_cannot_be_described_rejects_nothing(run: Played) -> None:
    stopped(run, "The endpoint could not be described: ", "no-such-endpoint")


@scenario(
    reconcile_endpoint=[plan("UPDATE")],
    apply_deployment=[applied()],
    smoke_test_endpoint=[raises("AwsRequestFailed", "ListObjectsV2 failed with AccessDenied: no")],
)
def test_a_smoke_test_that_cannot_run_rejects_nothing(run: Played) -> None:
    stopped(run, "The smoke test could not run: AwsRequestFailed: ListObjectsV2 failed")


@scenario(
    reconcile_endpoint=[plan("UPDATE")],
    apply_deployment=[applied()],
    smoke_test_endpoint=[HANGS],
)
def test_a_smoke_test_that_runs_out_of_time_rejects_nothing(run: Played) -> None:
    stopped(run, "The smoke test could not run: Sandbox.Timedout: ", "timed out")


@scenario(
    reconcile_endpoint=[plan("UPDATE")],
    apply_deployment=[raises("DeploymentRefused", "The package names no image.")],
    finish_deployment=[raises("AwsRequestFailed", "UpdateModelPackage failed with AccessDenied: no")],
)
def test_a_verdict_that_cannot_be_written_stops_the_machine_and_is_told(run: Played) -> None:
    assert (run.status, run.error) == ("FAILED", "DeploymentStopped")
    assert run.cause == (
        "The deployment could not be finished: AwsRequestFailed: UpdateModelPackage failed with "
        "AccessDenied: no (before that: The package names no image.)"
    )
    assert run.notices == [(STOPPED, run.cause)]


@scenario(
    topic=False,
    reconcile_endpoint=[plan("UPDATE"), plan("NONE")],
    apply_deployment=[applied()],
    smoke_test_endpoint=[SMOKE],
    finish_deployment=[finished("DEPLOYED")],
)
def test_a_notice_that_cannot_be_sent_stops_nothing(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.called == [*LINE, "reconcile_endpoint"]
    assert run.notices == []


@scenario(topic=False, reconcile_endpoint=[REFUSED])
def test_the_machine_fails_with_the_reason_also_when_no_notice_can_be_sent(run: Played) -> None:
    assert (run.status, run.error) == ("FAILED", "DeploymentStopped")
    assert run.cause.startswith("The endpoint could not be compared with the registry: AwsRequestFailed: ")
    assert run.notices == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_message_is_readable(played: Plays, name: str) -> None:
    run = played[name].result()
    told = [run.cause] + [text for notice in run.notices for text in notice]
    told += [given["message"] for given in run.inputs("finish_deployment")]
    assert [
        text for text in told if re.search(r"Traceback|stackTrace|errorMessage|errorType|[{}]", text)
    ] == []


def test_the_scripted_functions_answer_as_the_real_ones_do() -> None:
    assert breaches(SCENARIOS) == []


def test_every_path_of_the_machine_is_taken(played: Plays) -> None:
    definition = machines.shipped(MACHINE)
    assert machines.missing(definition, [run.result().paths for run in played.values()]) == []


def test_a_path_that_no_scenario_takes_is_found(played: Plays) -> None:
    definition = copy.deepcopy(machines.shipped(MACHINE))
    definition["States"]["Reconcile"]["Catch"].insert(
        0, {"ErrorEquals": ["ClaimLost"], "Next": "WaitForEndpoint"}
    )
    definition["States"]["Unreached"] = {"Type": "Succeed"}
    missing = machines.missing(definition, [run.result().paths for run in played.values()])
    assert "Unreached" in missing
    assert machines.Edge("Reconcile", "Catch 0", "WaitForEndpoint") in missing


def test_a_script_that_no_function_would_play_is_found() -> None:
    drifted: dict[str, list[Any]] = {
        "reconcile_endpoint": [{**plan("NONE"), "desired": {"version": "7"}}],
        "smoke_test_endpoint": [{**SMOKE, "examples": "5"}],
        "finish_deployment": [raises("NoSuchError", "x")],
    }
    assert [wrong.split(" ")[2] for wrong in breaches({"a scenario": Script(drifted)})] == [
        "reconcile_endpoint.desired",
        "smoke_test_endpoint.examples",
        "finish_deployment",
    ]
