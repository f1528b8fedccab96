"""The steps of a pipeline run with what their training jobs came to."""

from __future__ import annotations

from dataclasses import replace

from truthloop.errors import AwsRequestFailed
from truthloop.ports import Jobs, Pipeline
from truthloop.retraining.decision import StepResult


def read_steps(arn: str, pipeline: Pipeline, jobs: Jobs) -> tuple[StepResult, ...]:
    """Return the steps that have begun, each training step with its job.

    A job that cannot be described is left out: then it has cost, as far as anybody knows.

    Raises
    ------
    PipelineNotFound, AwsRequestFailed
        When the steps cannot be read.
    """
    return tuple(_with_job(step, jobs) for step in pipeline.steps(arn))


def _with_job(step: StepResult, jobs: Jobs) -> StepResult:
    if step.job_arn is None:
        return step
    try:
        return replace(step, job=jobs.describe_training(step.job_arn.rsplit("/", 1)[-1]))
    except AwsRequestFailed:
        return step
