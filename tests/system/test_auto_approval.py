"""With ``ApprovalMode=auto`` the recommended candidate goes into service without a person.

It has been trained on spot instances, each of which was taken away once.
"""

from __future__ import annotations

from typing import Any

import pytest

PARAMETERS = {"ApprovalMode": "auto", "UseSpotTraining": "true"}
ENVIRONMENT = {"TRUTHLOOP_SPOT_INTERRUPTIONS": "1"}


@pytest.mark.slow
def test_the_recommended_candidate_goes_into_service_without_a_person(stack: Any) -> None:
    # When a person starts a run, and does nothing more
    output = stack.retrain()
    assert output["outcome"] == "SUCCEEDED"
    packages = {
        item["ModelPackageArn"]: stack.client("sagemaker").describe_model_package(
            ModelPackageName=item["ModelPackageArn"]
        )
        for item in stack.packages()
    }

    # Then the recommended package, and it alone, is approved and says by whom
    (recommended,) = (
        arn for arn, body in packages.items() if body["CustomerMetadataProperties"]["recommended"] == "true"
    )
    assert len(packages) == 2
    assert {arn: body["ModelApprovalStatus"] for arn, body in packages.items()} == {
        **dict.fromkeys(packages, "PendingManualApproval"),
        recommended: "Approved",
    }
    assert packages[recommended]["ApprovalDescription"].startswith("Approved automatically by generation g0")

    # And the endpoint serves it
    stack.wait_served(recommended)
    statuses = {item["ModelPackageArn"]: item["ModelApprovalStatus"] for item in stack.packages()}
    assert statuses == {arn: body["ModelApprovalStatus"] for arn, body in packages.items()}

    # And the decision log tells of the run, of what it recommended, and of the deployment
    decisions = stack.decisions()
    (run,) = (decision for decision in decisions if decision["outcome"] == "SUCCEEDED")
    assert run["generation"] == output["generation"]
    recommendations = {
        package["M"]["arn"]["S"]: package["M"]["recommended"]["BOOL"] for package in run["modelPackages"]
    }
    assert recommendations == {arn: arn == recommended for arn in packages}
    (deployment,) = (decision for decision in decisions if decision["outcome"] == "DEPLOYED")
    assert deployment["modelPackages"][0]["M"]["arn"]["S"] == recommended


@pytest.mark.slow
def test_training_went_on_from_its_checkpoint_on_the_next_spot_instance(stack: Any) -> None:
    (run,) = stack.pipeline_runs()
    assert run["PipelineExecutionStatus"] == "Succeeded"
    sagemaker, logs = stack.client("sagemaker"), stack.client("logs")
    steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=run["PipelineExecutionArn"])
    jobs = [
        step["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
        for step in steps["PipelineExecutionSteps"]
        if "TrainingJob" in step["Metadata"]
    ]
    assert len(jobs) == 2
    for name in jobs:
        job = sagemaker.describe_training_job(TrainingJobName=name)
        assert job["EnableManagedSpotTraining"]
        assert job["CheckpointConfig"]["S3Uri"].rpartition("/")[2] == job["HyperParameters"]["candidate"]
        assert [each["Status"] for each in job["SecondaryStatusTransitions"]].count("Interrupted") == 1
        lines = [
            event["message"]
            for event in logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs")["events"]
            if event["logStreamName"].startswith(f"{name}/")
        ]
        resumed = [line for line in lines if "going on from a checkpoint" in line]
        assert len(resumed) == 1, resumed
