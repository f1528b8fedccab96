"""What the run would cost on AWS: list prices for the instance types that the jobs really named.

Two figures, never mixed: what the seconds that the jobs took *here* would cost on the instances that
they asked for, and what the policy estimates for a run of full size (the decision's ``estimatedUsd``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from demo.cloud import Cloud
from demo.result import CostRow, Span
from truthloop.instances.prices import USD_PER_HOUR


def job_rows(cloud: Cloud, runs: Sequence[str], monitor_jobs: Sequence[str]) -> list[CostRow]:
    """Return what the jobs of the pipeline runs and the monitor cost, one row per kind and type."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for run in runs:
        for step in cloud.pipeline_steps(run):
            metadata = step.get("Metadata", {})
            if arn := metadata.get("TrainingJob", {}).get("Arn"):
                kind, took = training_job(cloud, arn.rsplit("/", 1)[-1])
                seconds["training jobs", kind] += took
            elif arn := metadata.get("ProcessingJob", {}).get("Arn"):
                kind, took = processing_job(cloud, arn.rsplit("/", 1)[-1])
                seconds["prepare and evaluate jobs", kind] += took
    for name in monitor_jobs:
        kind, took = processing_job(cloud, name)
        seconds["monitor jobs", kind] += took
    return [row(what, kind, took) for (what, kind), took in seconds.items()]


def endpoint_row(instance_type: str, spans: Iterable[Span]) -> CostRow:
    """Return what the endpoint cost; while it is updated two fleets are paid for."""
    took = sum((span.end - span.start) * (2 if span.status == "Updating" else 1) for span in spans)
    return row("endpoint", instance_type, took)


def row(what: str, instance_type: str, seconds: float) -> CostRow:
    """Return one row: AWS bills by the second. A type that is not in the price table has no price."""
    hourly = USD_PER_HOUR.get(instance_type)
    return CostRow(what, instance_type, hourly, seconds, hourly and hourly * seconds / 3600)


def training_job(cloud: Cloud, name: str) -> tuple[str, float]:
    """Return instance type and instance seconds of a training job."""
    found = cloud.client("sagemaker").describe_training_job(TrainingJobName=name)
    resources = found["ResourceConfig"]
    return resources["InstanceType"], _seconds(found, "Training") * resources.get("InstanceCount", 1)


def processing_job(cloud: Cloud, name: str) -> tuple[str, float]:
    """Return instance type and instance seconds of a processing job."""
    found = cloud.client("sagemaker").describe_processing_job(ProcessingJobName=name)
    cluster = found["ProcessingResources"]["ClusterConfig"]
    return cluster["InstanceType"], _seconds(found, "Processing") * cluster["InstanceCount"]


def _seconds(job: dict[str, Any], kind: str) -> float:
    start, end = job.get(f"{kind}StartTime"), job.get(f"{kind}EndTime")
    if isinstance(start, datetime) and isinstance(end, datetime):
        return (end - start).total_seconds()
    return 0.0


def estimate(decisions: Iterable[dict[str, Any]]) -> float:
    """Return what the policy estimates for one run of full size: the last decision that names it."""
    found = [float(decision["estimatedUsd"]) for decision in decisions if decision.get("estimatedUsd")]
    return found[-1] if found else 0.0
