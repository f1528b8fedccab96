"""The SageMaker Pipeline of the loop, and the files that are generated from it.

    make pipeline        # .venv-sdk/bin/python -m pipeline.definition, in containers/

writes ``definition.json`` and ``definition_spot.json`` (to read and to review) and ``template.yaml`` (the
nested CloudFormation template that ``sam deploy`` sends). The SDK is far too large for what runs in the loop,
so all are committed; a test generates them again and compares.

Prepare → TrainOld ∥ TrainNew → Evaluate → CheckGate → RegisterOld, RegisterNew | FailGate

What is fixed at deployment (names, role, images, what a model is) stands in the definition as ``${…}``, which
CloudFormation's ``Fn::Sub`` fills in. The SDK knows no such placeholders, so it is given stand-ins of valid
form, and :func:`with_placeholders` puts the placeholders in their place.

There are two definitions because CreateTrainingJob refuses ``MaxWaitTimeInSeconds`` where
``EnableManagedSpotTraining`` is not true, and a pipeline cannot leave a member out by a parameter. The
template takes one of them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The SDK reads these on import or on first use; none of them reaches the definition.
os.environ.update(
    AWS_DEFAULT_REGION="us-east-1",
    AWS_ACCESS_KEY_ID="offline",
    AWS_SECRET_ACCESS_KEY="offline",  # noqa: S106 - nothing is called
    SAGEMAKER_VALIDATE_ROLE="false",
    SAGEMAKER_ADMIN_CONFIG_OVERRIDE=os.devnull,
    SAGEMAKER_USER_CONFIG_OVERRIDE=os.devnull,
)

from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.network import NetworkConfig
from sagemaker.core.processing import Processor
from sagemaker.core.shapes import (
    Channel,
    CheckpointConfig,
    DataSource,
    MetricDefinition,
    OutputDataConfig,
    ProcessingInput,
    ProcessingOutput,
    ProcessingS3Input,
    ProcessingS3Output,
    S3DataSource,
    StoppingCondition,
)
from sagemaker.core.training.configs import Compute, Networking
from sagemaker.core.workflow.conditions import ConditionEquals
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.fail_step import FailStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer

from common.inputs import CONTENT_TYPES
from common.logs import METRIC_DEFINITIONS

HERE = Path(__file__).parent
STAND_INS = {
    "arn:aws:iam::123456789012:role/JobRole": "${JobRoleArn}",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-training:stand-in": "${TrainingImageUri}",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-inference:stand-in": "${InferenceImageUri}",
    "stand-in-model-package-group": "${ModelPackageGroupName}",
    "stand-in-architectures": "${Architectures}",
    "stand-in-image-size": "${ImageSize}",
    "stand-in-image-channels": "${ImageChannels}",
    "stand-in-batch-size": "${BatchSize}",
    "stand-in-hyperparameters": "${Hyperparameters}",
}
(
    ROLE,
    TRAINING_IMAGE,
    INFERENCE_IMAGE,
    MODEL_PACKAGE_GROUP,
    ARCHITECTURES,
    IMAGE_SIZE,
    IMAGE_CHANNELS,
    BATCH_SIZE,
    HYPERPARAMETERS,
) = STAND_INS
INPUT_ROOT = "/opt/ml/processing/input"
OUTPUT_ROOT = "/opt/ml/processing/output"
CHECKPOINTS = "/opt/ml/checkpoints"
SERVING_INSTANCES = [
    "ml.g4dn.xlarge",
    "ml.g4dn.2xlarge",
    "ml.g5.xlarge",
    "ml.g6.xlarge",
    "ml.m5.large",
    "ml.c5.large",
]
"""What an endpoint may run on: the image has kernels for the T4, the A10G and the L4, and serves on CPUs."""

GENERATION = ParameterString("Generation")
DATASET_URI = ParameterString("DatasetUri")
BASE_URI = ParameterString("BaseUri")
CAPTURE_MANIFEST_URI = ParameterString("CaptureManifestUri")
EXAMPLES_MANIFEST_URI = ParameterString("ExamplesManifestUri")
CHAMPION_MANIFEST_URI = ParameterString("ChampionManifestUri")
RUN_URI = ParameterString("RunUri")
CHECKPOINT_URI = ParameterString("CheckpointUri")
TRAINING_INSTANCE_TYPE = ParameterString("TrainingInstanceType", default_value="ml.p3.8xlarge")
PROCESSING_INSTANCE_TYPE = ParameterString("ProcessingInstanceType", default_value="ml.m5.xlarge")
TRAINING_INSTANCE_COUNT = ParameterInteger("TrainingInstanceCount", default_value=1)
VOLUME_SIZE_GB = ParameterInteger("VolumeSizeGb", default_value=100)
MAX_RUNTIME_SECONDS = ParameterInteger("MaxRuntimeSeconds", default_value=172_800)
MAX_WAIT_SECONDS = ParameterInteger("MaxWaitSeconds", default_value=259_200)
ACCURACY_THRESHOLD = ParameterFloat("AccuracyThreshold", default_value=0.85)
IMPROVEMENT_MARGIN = ParameterFloat("ImprovementMargin", default_value=0.0)
MAXIMUM_CLASS_LOSS = ParameterFloat("MaximumClassLoss", default_value=0.1)
HOLDOUT_SHARE = ParameterFloat("HoldoutShare", default_value=0.2)
EPOCHS = ParameterInteger("Epochs", default_value=30)
PARAMETERS = [
    GENERATION,
    DATASET_URI,
    BASE_URI,
    CAPTURE_MANIFEST_URI,
    EXAMPLES_MANIFEST_URI,
    CHAMPION_MANIFEST_URI,
    RUN_URI,
    CHECKPOINT_URI,
    TRAINING_INSTANCE_TYPE,
    PROCESSING_INSTANCE_TYPE,
    TRAINING_INSTANCE_COUNT,
    VOLUME_SIZE_GB,
    MAX_RUNTIME_SECONDS,
    ACCURACY_THRESHOLD,
    IMPROVEMENT_MARGIN,
    MAXIMUM_CLASS_LOSS,
    HOLDOUT_SHARE,
    EPOCHS,
]


def _run_uri(*parts: str) -> Join:
    return Join(on="/", values=[RUN_URI, *parts])


def _input(name: str, uri: Any, data_type: str = "S3Prefix") -> ProcessingInput:
    return ProcessingInput(
        input_name=name,
        s3_input=ProcessingS3Input(
            s3_uri=uri,
            local_path=f"{INPUT_ROOT}/{name}",
            s3_data_type=data_type,
            s3_input_mode="File",
            s3_data_distribution_type="FullyReplicated",
        ),
    )


def _output(name: str, uri: Any) -> ProcessingOutput:
    return ProcessingOutput(
        output_name=name,
        s3_output=ProcessingS3Output(
            s3_uri=uri, local_path=f"{OUTPUT_ROOT}/{name}", s3_upload_mode="EndOfJob"
        ),
    )


def _processor(session: PipelineSession, environment: Mapping[str, Any]) -> Processor:
    return Processor(
        role=ROLE,
        image_uri=TRAINING_IMAGE,
        instance_count=1,
        instance_type=PROCESSING_INSTANCE_TYPE,
        volume_size_in_gb=VOLUME_SIZE_GB,
        max_runtime_in_seconds=MAX_RUNTIME_SECONDS,
        env=dict(environment),
        # SageMaker brings the data in and out: the container decodes pictures of strangers, and calls nobody.
        network_config=NetworkConfig(enable_network_isolation=True),
        sagemaker_session=session,
    )


def _prepare(session: PipelineSession) -> ProcessingStep:
    processor = _processor(session, {"HOLDOUT_SHARE": HOLDOUT_SHARE.to_string()})
    arguments = processor.run(
        arguments=["prepare"],
        inputs=[
            _input("dataset", DATASET_URI),
            _input("base", BASE_URI),
            _input("capture", CAPTURE_MANIFEST_URI, "ManifestFile"),
            _input("examples", EXAMPLES_MANIFEST_URI, "ManifestFile"),
        ],
        outputs=[_output(name, _run_uri("prepared", name)) for name in ("train", "holdout", "report")],
    )
    return ProcessingStep(name="Prepare", step_args=arguments)


def _output_uri(step: ProcessingStep, name: str) -> Any:
    return step.properties.ProcessingOutputConfig.Outputs[name].S3Output.S3Uri


def _channel(name: str, uri: Any, data_type: str, mode: str) -> Channel:
    source = S3DataSource(s3_data_type=data_type, s3_uri=uri, s3_data_distribution_type="FullyReplicated")
    return Channel(channel_name=name, data_source=DataSource(s3_data_source=source), input_mode=mode)


def _train(session: PipelineSession, candidate: str, prepare: ProcessingStep, *, spot: bool) -> TrainingStep:
    limits = {"max_runtime_in_seconds": MAX_RUNTIME_SECONDS}
    if spot:
        limits["max_wait_time_in_seconds"] = MAX_WAIT_SECONDS
    trainer = ModelTrainer(
        sagemaker_session=session,
        role=ROLE,
        training_image=TRAINING_IMAGE,
        # Not validated: the SDK's types admit no pipeline variable for these, though the service does.
        compute=Compute.model_construct(
            instance_type=TRAINING_INSTANCE_TYPE,
            instance_count=TRAINING_INSTANCE_COUNT,
            volume_size_in_gb=VOLUME_SIZE_GB,
            enable_managed_spot_training=spot,
        ),
        stopping_condition=StoppingCondition.model_construct(**limits),
        # Instances of one job still reach each other; nothing else is reached.
        networking=Networking(enable_network_isolation=True),
        output_data_config=OutputDataConfig(s3_output_path=_run_uri("models"), compression_type="GZIP"),
        # The prefix is the candidate's alone: a job goes on from what it finds there.
        checkpoint_config=CheckpointConfig(
            s3_uri=Join(on="/", values=[CHECKPOINT_URI, candidate]), local_path=CHECKPOINTS
        ),
        hyperparameters={
            "candidate": candidate,
            "generation": GENERATION,
            "epochs": EPOCHS.to_string(),
            "architectures": ARCHITECTURES,
            "batch_size": BATCH_SIZE,
            "image_size": IMAGE_SIZE,
            "channels": IMAGE_CHANNELS,
            "seed": "0",
            "more": HYPERPARAMETERS,
        },
        input_data_config=[
            # Read from start to end, once: training begins before the last shard has come.
            _channel("train", _output_uri(prepare, "train"), "S3Prefix", "FastFile"),
            # FastFile knows no manifests.
            _channel("champion", CHAMPION_MANIFEST_URI, "ManifestFile", "File"),
        ],
    ).with_metric_definitions(
        [MetricDefinition(name=metric["Name"], regex=metric["Regex"]) for metric in METRIC_DEFINITIONS]
    )
    return TrainingStep(name=f"Train{candidate.title()}", step_args=trainer.train())


def _evaluate(
    session: PipelineSession,
    prepare: ProcessingStep,
    trained: Mapping[str, TrainingStep],
    report: PropertyFile,
) -> ProcessingStep:
    environment = {
        "ACCURACY_THRESHOLD": ACCURACY_THRESHOLD.to_string(),
        "IMPROVEMENT_MARGIN": IMPROVEMENT_MARGIN.to_string(),
        "MAXIMUM_CLASS_LOSS": MAXIMUM_CLASS_LOSS.to_string(),
    }
    arguments = _processor(session, environment).run(
        arguments=["evaluate"],
        inputs=[
            _input("dataset", DATASET_URI),
            _input("holdout", _output_uri(prepare, "holdout")),
            _input("champion", CHAMPION_MANIFEST_URI, "ManifestFile"),
            *(
                _input(name, step.properties.ModelArtifacts.S3ModelArtifacts)
                for name, step in trained.items()
            ),
        ],
        outputs=[_output("evaluation", _run_uri("evaluation"))],
    )
    return ProcessingStep(name="Evaluate", step_args=arguments, property_files=[report])


def _evaluated(report: PropertyFile, path: str) -> JsonGet:
    return JsonGet(step_name="Evaluate", property_file=report, json_path=path)


def _register(
    session: PipelineSession, candidate: str, trained: TrainingStep, report: PropertyFile
) -> ModelStep:
    builder = ModelBuilder(
        image_uri=INFERENCE_IMAGE,
        # The server loads these weights and no others: what was evaluated is what is served.
        env_vars={"MODEL_SHA256": _evaluated(report, f"models.{candidate}.weightsSha256")},
        dependencies={},  # or the SDK prepares to upload code, though the image holds all of it
        s3_model_data_url=trained.properties.ModelArtifacts.S3ModelArtifacts,
        role_arn=ROLE,
        sagemaker_session=session,
    )
    statistics = MetricsSource(
        s3_uri=_run_uri("evaluation", candidate, "statistics.json"), content_type="application/json"
    )
    arguments = builder.register(
        model_package_group_name=MODEL_PACKAGE_GROUP,
        content_types=list(CONTENT_TYPES),
        response_types=["application/json"],
        inference_instances=SERVING_INSTANCES,
        approval_status="PendingManualApproval",
        model_metrics=ModelMetrics(model_statistics=statistics),
        customer_metadata_properties={
            "generation": GENERATION,
            "candidate": candidate,
            "datasetUri": DATASET_URI,
            "evaluationUri": _run_uri("evaluation", "evaluation.json"),
            "labelsUri": _run_uri("evaluation", "labels.json"),
            "reportUri": _run_uri("evaluation", candidate, "report.html"),
        },
        domain="COMPUTER_VISION",
        task="IMAGE_CLASSIFICATION",
    )
    return ModelStep(name=f"Register{candidate.title()}", step_args=arguments)


def build(*, spot: bool) -> Pipeline:
    """Return the pipeline; nothing is called, so it needs neither an account nor a network.

    Parameters
    ----------
    spot
        Whether the training jobs run on spare capacity.
    """
    session = PipelineSession(default_bucket="unused")
    prepare = _prepare(session)
    trained = {candidate: _train(session, candidate, prepare, spot=spot) for candidate in ("old", "new")}
    report = PropertyFile(name="Evaluation", output_name="evaluation", path="evaluation.json")
    evaluate = _evaluate(session, prepare, trained, report)
    reason = [
        "no candidate reached the accuracy threshold of ",
        ACCURACY_THRESHOLD,
        " on the holdout: see ",
        _run_uri("evaluation", "evaluation.json"),
    ]
    check = ConditionStep(
        name="CheckGate",
        conditions=[ConditionEquals(left=_evaluated(report, "gate.passed"), right=1)],
        if_steps=[_register(session, candidate, step, report) for candidate, step in trained.items()],
        else_steps=[FailStep(name="FailGate", error_message=Join(on="", values=reason))],
    )
    return Pipeline(
        name="stand-in",
        parameters=[*PARAMETERS, MAX_WAIT_SECONDS] if spot else PARAMETERS,
        steps=[prepare, *trained.values(), evaluate, check],
        # An experiment per run would need rights for nothing that the loop reads.
        pipeline_experiment_config=None,
        sagemaker_session=session,
    )


def with_placeholders(definition: str) -> str:
    """Put ``${…}`` in the place of the stand-ins.

    Raises
    ------
    ValueError
        A stand-in does not occur, or the definition holds a ``${`` of its own that CloudFormation would
        take for a placeholder.
    """
    if "${" in definition:
        raise ValueError("the definition holds a '${' of its own: Fn::Sub would try to fill it in")
    for stand_in, placeholder in STAND_INS.items():
        if stand_in not in definition:
            raise ValueError(f"{stand_in} does not occur in the definition, so {placeholder} would be lost")
        definition = definition.replace(stand_in, placeholder)
    return definition


def definition_text(*, spot: bool) -> str:
    """Return ``definition.json``, or ``definition_spot.json``."""
    logging.disable(logging.WARNING)  # the SDK warns of every name that it leaves to the service
    warnings.simplefilter("ignore", UserWarning)
    definition = json.loads(with_placeholders(build(spot=spot).definition()))
    return json.dumps(definition, indent=2) + "\n"


TEMPLATE = """\
# Generated by containers/pipeline/definition.py: change it there and run `make pipeline`.
AWSTemplateFormatVersion: "2010-09-09"
Description: The SageMaker Pipeline that retrains, compares and registers.

Parameters:
  PipelineName:
    Type: String
    Description: Name of the pipeline.
  PipelineRoleArn:
    Type: String
    Description: Role of the pipeline itself; starts the jobs and registers the packages.
  JobRoleArn:
    Type: String
    Description: Role of the pipeline's jobs.
  ModelPackageGroupName:
    Type: String
    Description: Model package group that candidates are registered in.
  TrainingImageUri:
    Type: String
    Description: Image of containers/training.
  InferenceImageUri:
    Type: String
    Description: Image of containers/inference.
  Architectures:
    Type: String
    Description: Architectures to train, the first model's first.
  ImageSize:
    Type: Number
    Description: Height and width of a first model's input.
  ImageChannels:
    Type: Number
    Description: Channels of a first model's input.
  BatchSize:
    Type: Number
    Description: Images per step of training, over all GPUs of all instances.
  Hyperparameters:
    Type: String
    Description: Other hyperparameters of training, name=value,name=value.
  UseSpotTraining:
    Type: String
    AllowedValues: ["true", "false"]
    Description: Whether training uses spare capacity.

Conditions:
  UsesSpot: !Equals [!Ref UseSpotTraining, "true"]

Resources:
  Pipeline:
    Type: AWS::SageMaker::Pipeline
    Properties:
      PipelineName: !Ref PipelineName
      PipelineDisplayName: !Ref PipelineName
      PipelineDescription: Prepare, train the old and a new model, compare both with the champion, register.
      RoleArn: !Ref PipelineRoleArn
      PipelineDefinition:
        PipelineDefinitionBody: !If
          - UsesSpot
          - !Sub >-
            %s
          - !Sub >-
            %s

Outputs:
  PipelineName:
    Description: Name of the pipeline.
    Value: !Ref Pipeline
  PipelineArn:
    Description: ARN of the pipeline.
    Value: !Sub arn:${AWS::Partition}:sagemaker:${AWS::Region}:${AWS::AccountId}:pipeline/${Pipeline}
"""


def template_text(definition: str, with_spot: str) -> str:
    """Return ``template.yaml`` for the texts of ``definition.json`` and ``definition_spot.json``."""
    return TEMPLATE % tuple(
        json.dumps(json.loads(text), separators=(",", ":")) for text in (with_spot, definition)
    )


def main(directory: Path) -> None:
    """Write the three files into ``directory``."""
    definition, with_spot = definition_text(spot=False), definition_text(spot=True)
    (directory / "definition.json").write_text(definition, "utf-8")
    (directory / "definition_spot.json").write_text(with_spot, "utf-8")
    (directory / "template.yaml").write_text(template_text(definition, with_spot), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
