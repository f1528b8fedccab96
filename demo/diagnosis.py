"""When something fails, say why: the cause of an execution, the failure of a job, the end of its log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.cloud import Cloud

JOBS = {"TrainingJob": "/aws/sagemaker/TrainingJobs", "ProcessingJob": "/aws/sagemaker/ProcessingJobs"}
"""Kind of job in a step's metadata and the log group that its containers write to."""

LOG_LINES = 15


def log_tail(cloud: Cloud, group: str, prefix: str, count: int = LOG_LINES) -> list[str]:
    """Return the last lines of the newest log stream whose name begins with ``prefix``."""
    logs = cloud.client("logs")
    which = {"logStreamNamePrefix": prefix} if prefix else {}
    streams = logs.describe_log_streams(logGroupName=group, **which)["logStreams"]
    if not streams:
        return [f"(no log stream {prefix}* in {group})"]
    newest = max(streams, key=lambda stream: stream.get("lastEventTimestamp", 0))
    events = logs.get_log_events(
        logGroupName=group, logStreamName=newest["logStreamName"], startFromHead=False
    )
    lines = [line for event in events["events"] for line in str(event["message"]).splitlines()]
    return [f"{group} {newest['logStreamName']}, last lines:", *lines[-count:]]


def execution(cloud: Cloud, arn: str) -> list[str]:
    """Return why a state machine's execution ended as it did."""
    found = cloud.client("stepfunctions").describe_execution(executionArn=arn)
    lines = [f"execution {found['name']}: {found['status']} {found.get('error', '')}".rstrip()]
    lines += str(found.get("cause", "")).splitlines()[:LOG_LINES]
    return lines


def pipeline_run(cloud: Cloud, arn: str) -> list[str]:
    """Return why a pipeline run failed: its reason, and reason and log of each failed step."""
    sagemaker = cloud.client("sagemaker")
    found = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    lines = [f"pipeline run {arn.rsplit('/', 1)[-1]}: {found['PipelineExecutionStatus']}"]
    if found.get("FailureReason"):
        lines.append(str(found["FailureReason"]))
    for step in cloud.pipeline_steps(arn):
        if step["StepStatus"] != "Failed":
            continue
        lines.append(f"step {step['StepName']}: {step.get('FailureReason', 'no reason given')}")
        for kind, group in JOBS.items():
            if job := step.get("Metadata", {}).get(kind, {}).get("Arn"):
                lines += quietly(log_tail, cloud, group, job.rsplit("/", 1)[-1])
    return lines


def endpoint(cloud: Cloud, name: str) -> list[str]:
    """Return why an endpoint is not in service, and the end of its log."""
    found = cloud.client("sagemaker").describe_endpoint(EndpointName=name)
    lines = [f"endpoint {name}: {found['EndpointStatus']} {found.get('FailureReason', '')}".rstrip()]
    return lines + quietly(log_tail, cloud, f"/aws/sagemaker/Endpoints/{name}", "")


def processing_job(cloud: Cloud, name: str) -> list[str]:
    """Return why a processing job failed, and the end of its log."""
    found = cloud.client("sagemaker").describe_processing_job(ProcessingJobName=name)
    lines = [f"job {name}: {found['ProcessingJobStatus']} {found.get('FailureReason', '')}".rstrip()]
    return lines + quietly(log_tail, cloud, JOBS["ProcessingJob"], name)


def function_error(answer: dict[str, Any]) -> list[str]:
    """Return what a Lambda function's error answer says."""
    said = json.loads(answer["Payload"].read() or b"null")
    return json.dumps(said, indent=1).splitlines()[:LOG_LINES]


def quietly(look: Callable[..., list[str]], *args: Any) -> list[str]:
    """Look for evidence; that there is none must not hide the failure that it belongs to."""
    try:
        return look(*args)
    except (ClientError, BotoCoreError) as error:
        return [f"(no more evidence: {error})"]
