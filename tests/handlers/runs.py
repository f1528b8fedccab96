"""One run of the retrain machine, played step by step."""

from __future__ import annotations

from typing import Any

BREACH = {
    "source": "aws.cloudwatch",
    "detail-type": "CloudWatch Alarm State Change",
    "id": "alarm-1",
    "time": "2026-11-22T10:00:00Z",
    "detail": {"alarmName": "truthloop-accuracy", "state": {"value": "ALARM", "reason": "0.7 < 0.85"}},
}


def keyed(claim: Any, **more: Any) -> dict[str, Any]:
    return {"execution": claim["holder"], "generation": claim["generation"], **more}


def release(world: Any, claim: Any, **parts: Any) -> Any:
    given = dict.fromkeys(("outcome", "message", "preflight", "dataset", "decision", "error"))
    return world.run("release_run", keyed(claim, **{**given, **parts}))


def started(world: Any, claim: Any) -> tuple[Any, Any]:
    """Snapshot and start; the pipeline is executing."""
    dataset = world.run("snapshot_dataset", keyed(claim))
    start = world.run("start_pipeline", keyed(claim, dataset=dataset))
    world.set_pipeline_status(start["pipelineExecutionArn"], "Executing")
    return dataset, start


def finished(
    world: Any, name: str, outcome: str = "SUCCEEDED", trigger: Any = None, reason: str = "out of memory"
) -> Any:
    """Play one whole run; returns its claim."""
    claim = world.claim(name, trigger)
    _, start = started(world, claim)
    status = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "STOPPED": "Stopped"}[outcome]
    world.set_pipeline_status(start["pipelineExecutionArn"], status)
    if outcome == "FAILED":
        step = {"StepName": "TrainNew", "StepStatus": "Failed", "FailureReason": reason}
        world.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [step]})
    answer = release(world, claim, outcome=outcome, decision={"outcome": outcome, "message": "m"})
    assert answer["released"]
    return claim


def deploy(world: Any, package: str, *, config: str = "by-hand") -> None:
    """Put a package into service, as a person does."""
    world.sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::1:role/r",
        PrimaryContainer={"ModelPackageName": package},
    )
    world.sagemaker.create_endpoint_config(
        EndpointConfigName=config,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "m",
                "InstanceType": "ml.g4dn.xlarge",
                "InitialInstanceCount": 1,
                "InitialVariantWeight": 1.0,
            }
        ],
    )
    world.sagemaker.create_endpoint(EndpointName="truthloop-endpoint", EndpointConfigName=config)
