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
    if outcome != "SUCCEEDED":
        step = {"StepName": "TrainNew", "StepStatus": status, "FailureReason": reason}
        world.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [step]})
    answer = release(world, claim, outcome=outcome, decision={"outcome": outcome, "message": "m"})
    assert answer["released"]
    return claim


def training_job(**said: Any) -> dict[str, Any]:
    """Return what DescribeTrainingJob says of a spot job whose instances never came, or what `said` changes.

    As "Managed Spot Training Lifecycle" of SageMaker's developer guide has it: no start, no seconds.
    """
    phases = said.pop("phases", ["Starting", "Stopping", "MaxWaitTimeExceeded"])
    moment = 1_795_000_000
    return {
        "TrainingJobName": "job",
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "MaxWaitTimeExceeded",
        "SecondaryStatusTransitions": [{"Status": phase, "StartTime": moment} for phase in phases],
        "EnableManagedSpotTraining": True,
        "ResourceConfig": {"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100},
        **said,
    }


def training_step(name: str, status: str, reason: str = "") -> dict[str, Any]:
    """Return a training step with its job."""
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-x-{name}-y"
    step = {"StepName": name, "StepStatus": status, "Metadata": {"TrainingJob": {"Arn": arn}}}
    return {**step, "FailureReason": reason} if reason else step


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
