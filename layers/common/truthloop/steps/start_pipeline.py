"""Start the generation's pipeline execution, or find it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from truthloop.errors import StartUnsettled
from truthloop.inputs import DatasetInput, StartInput
from truthloop.names import digest
from truthloop.ports import Objects, Ports
from truthloop.retraining.claim import (
    GenerationRecord,
    LastRun,
    left_waiting,
    require_claim,
    start_is_unsettled,
)
from truthloop.retraining.policy import estimated_usd
from truthloop.settings import BASE_PREFIX, CHECKPOINTS_PREFIX, PolicySettings
from truthloop.steps.orphans import find_orphans
from truthloop.times import to_iso


class StartOutput(TypedDict):
    """The pipeline execution, and whether it was there already."""

    pipelineExecutionArn: str
    found: bool


def start_pipeline(event: object, ports: Ports) -> StartOutput:
    """Start at most one pipeline execution per generation.

    Three things make it one, each for a moment that the others cannot see: the record says that a start was
    asked for before it is asked for; the execution is looked up by its display name, the generation; and the
    client request token derives from the generation and its dataset.

    And none beside another: with a live run of somebody else's about, the claim waits for that one instead,
    and its triggers for the generation after it. The answer then names the run that is waited for.

    Raises
    ------
    ClaimLost
        When the execution does not hold the claim.
    StartUnsettled
        When somebody else's run is live, and this generation's may yet come to light.
    PipelineNotFound
        When the pipeline is not deployed.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = StartInput.parse(event)
    execution, generation = given.execution, given.generation
    record = require_claim(ports.table.read(), execution, generation)
    if record.pipeline_execution_arn is not None:
        return {"pipelineExecutionArn": record.pipeline_execution_arn, "found": True}

    dataset = given.dataset
    policy, now = ports.settings.policy, to_iso(ports.now())
    run = LastRun(
        generation=generation,
        dataset_version=dataset.dataset_version,
        dataset_uri=dataset.dataset_uri,
        pipeline_execution_arn="",
        started_at=now,
        code_version=policy.code_version,
        estimated_usd=estimated_usd(policy) or 0.0,
    )
    # Before a start was asked for, a run of this name is somebody else's.
    running = ports.pipeline.find(generation) if record.starting else None
    if running is None and (in_the_way := _wait_for_another(record, execution, ports)):
        return {"pipelineExecutionArn": in_the_way, "found": True}
    ports.table.request_start(record.generation, execution, run, now)
    if running is not None:
        arn = running.arn
    else:
        token = digest(ports.pipeline.name, generation, dataset.dataset_uri, dataset.dataset_version)
        arn = ports.pipeline.start(generation, token, _parameters(generation, dataset, policy, ports.objects))
    started = replace(record.starting or run, pipeline_execution_arn=arn)
    ports.table.record_start(record.generation, execution, arn, started)
    return {"pipelineExecutionArn": arn, "found": running is not None}


def _wait_for_another(record: GenerationRecord, execution: str, ports: Ports) -> str | None:
    """Let the claim wait for a live run that is not its own, if there is one; returns its ARN."""
    orphans = find_orphans(ports, besides=record.name if record.starting else None)
    if not orphans:
        return None
    if start_is_unsettled(record, ports.now()):
        raise StartUnsettled(
            f"{orphans[0].pipeline_execution_arn} runs, and the start that {record.name} asked for at "
            f"{record.start_asked_at} may yet come to light"
        )
    oldest = min(orphans, key=lambda orphan: orphan.started_at)
    ports.table.wait_for(record.generation, execution, oldest, left_waiting(record))
    return oldest.pipeline_execution_arn


def _parameters(
    generation: str, dataset: DatasetInput, policy: PolicySettings, objects: Objects
) -> dict[str, str]:
    # The definition without spot has no such parameter, and SageMaker refuses one that it does not know.
    waiting = {"MaxWaitSeconds": str(policy.max_wait_seconds)} if policy.use_spot_training else {}
    return {
        **waiting,
        "Generation": generation,
        "DatasetUri": dataset.dataset_uri,
        "BaseUri": objects.uri(BASE_PREFIX),
        "CaptureManifestUri": dataset.capture_manifest_uri,
        "ExamplesManifestUri": dataset.examples_manifest_uri,
        "ChampionManifestUri": dataset.champion_manifest_uri,
        "RunUri": objects.uri(f"runs/{generation}"),
        "CheckpointUri": objects.uri(f"{CHECKPOINTS_PREFIX}{generation}"),
        "TrainingInstanceType": policy.training_instance_type,
        "ProcessingInstanceType": policy.processing_instance_type,
        "TrainingInstanceCount": str(policy.training_instance_count),
        "VolumeSizeGb": str(policy.volume_size_gb),
        "MaxRuntimeSeconds": str(policy.max_runtime_seconds),
        "AccuracyThreshold": str(policy.accuracy_threshold),
        "ImprovementMargin": str(policy.improvement_margin),
        "MaximumClassLoss": str(policy.maximum_class_loss),
        "HoldoutShare": str(policy.holdout_share),
        "Epochs": str(policy.epochs),
    }
