"""With ``ApprovalMode=auto`` the recommended candidate goes into service without a person."""

from __future__ import annotations

from typing import Any

import pytest

PARAMETERS = {"ApprovalMode": "auto"}


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
