"""The last run, when it did not train: how it ended, and what is known now that it did not train on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from truthloop.errors import AwsRequestFailed, DatasetInvalid, ObjectMissing, PipelineNotFound
from truthloop.names import dataset_prefix
from truthloop.ports import Jobs, Objects, Pipeline
from truthloop.retraining.claim import LastRun
from truthloop.retraining.decision import STEP_FAILED, STEP_STOPPED, failed_steps, is_costless
from truthloop.retraining.evidence import Failure
from truthloop.steps.training_jobs import read_steps
from truthloop.versions.labels import Statement

_UNKNOWN = "Unknown"


@dataclass(frozen=True)
class News:
    """What a failed run did not train on: how many labels, and how many of those that wait."""

    labels: int
    waiting: int


def read_failure(run: LastRun, pipeline: Pipeline, jobs: Jobs) -> Failure:
    """Say how a run ended that did not train; its reason serves people, so it may stay unknown."""
    arn = run.pipeline_execution_arn
    try:
        execution = pipeline.describe(arn)
    except (PipelineNotFound, AwsRequestFailed) as error:
        return Failure(_UNKNOWN, str(error))
    if execution.status not in (STEP_FAILED, STEP_STOPPED):
        return Failure(execution.status, execution.failure_reason)
    try:
        steps = read_steps(arn, pipeline, jobs)
    except (PipelineNotFound, AwsRequestFailed) as error:
        return Failure(execution.status, execution.failure_reason or str(error))
    reasons = [step.ending for step in failed_steps(steps) if step.ending]
    return Failure(execution.status, "; ".join(reasons) or execution.failure_reason, is_costless(steps))


def count_news(
    objects: Objects, run: LastRun, labels: Mapping[str, Statement], waiting: Mapping[str, Statement]
) -> News | None:
    """Count the labels that the dataset of `run` has not, or otherwise; None when it is not there any more.

    The dataset is read line by line and never held: it is as large as `labels`.

    Raises
    ------
    DatasetInvalid
        When the dataset cannot be read.
    """
    key = f"{dataset_prefix(run.generation)}ground-truth.jsonl"
    known, known_waiting = 0, 0
    try:
        for number, line in enumerate(objects.lines(key), 1):
            try:
                said = json.loads(line)
                identifier, label = said["inferenceId"], said["label"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DatasetInvalid(f"line {number} of {objects.uri(key)} is no label: {error!r}") from error
            known += _says(labels, identifier, label)
            known_waiting += _says(waiting, identifier, label)
    except ObjectMissing:
        return None
    return News(len(labels) - known, len(waiting) - known_waiting)


def _says(statements: Mapping[str, Statement], identifier: str, label: str) -> bool:
    found = statements.get(identifier)
    return found is not None and found.label == label
