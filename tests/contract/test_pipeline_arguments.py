"""Each step of the generated pipeline asks SageMaker for what its API takes.

The SDK writes the arguments without looking at the API's model, and SageMaker reads them only when the step
runs: an hour into a run, a misspelt member is money lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from tests.contract.api_model import violations
from truthloop.retraining.decision import GATE_STEP, TRAINING_STEPS

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = {
    name: json.loads((ROOT / f"containers/pipeline/{name}.json").read_text())
    for name in ("definition", "definition_spot")
}
OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "RegisterModel": "CreateModelPackage",
}
NAMED_BY_THE_SERVICE = {"ProcessingJobName": "pipelines-1-step", "TrainingJobName": "pipelines-1-step"}
PLACEHOLDERS = {
    "JobRoleArn": "arn:aws:iam::123456789012:role/job",
    "TrainingImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-training:latest",
    "InferenceImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-inference:latest",
    "ModelPackageGroupName": "truthloop-models",
    "Architectures": "convnet,convmixer",
    "ImageSize": "16",
    "ImageChannels": "1",
    "BatchSize": "64",
    "Hyperparameters": "",
}
PARAMETERS = {
    "Generation": "g00000001",
    "DatasetUri": "s3://bucket/datasets/g00000001/",
    "BaseUri": "s3://bucket/base/",
    "CaptureManifestUri": "s3://bucket/datasets/g00000001/capture.manifest",
    "ExamplesManifestUri": "s3://bucket/datasets/g00000001/examples.manifest",
    "ChampionManifestUri": "s3://bucket/datasets/g00000001/champion.manifest",
    "RunUri": "s3://bucket/runs/g00000001",
    "CheckpointUri": "s3://bucket/checkpoints/g00000001",
    **{
        parameter["Name"]: parameter["DefaultValue"]
        for definition in DEFINITIONS.values()
        for parameter in definition["Parameters"]
        if "DefaultValue" in parameter
    },
}


def every_step(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from every_step(step["Arguments"]["IfSteps"] + step["Arguments"]["ElseSteps"])


STEPS_OF = {
    name: {step["Name"]: step for step in every_step(definition["Steps"])}
    for name, definition in DEFINITIONS.items()
}
STEPS = STEPS_OF["definition"]


def test_the_steps_that_a_decision_knows_are_the_pipelines() -> None:
    assert {name for name, step in STEPS.items() if step["Type"] == "Training"} == TRAINING_STEPS
    assert STEPS[GATE_STEP]["Type"] == "Fail"


def resolved(value: Any) -> Any:
    """Return arguments as the service sees them: with parameters, properties and joins in their place."""
    if isinstance(value, list):
        return [resolved(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: PLACEHOLDERS[found[1]], value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        kind, _, name = value["Get"].partition(".")
        if kind == "Parameters":
            return PARAMETERS[name]
        assert name.split(".")[0] in STEPS, f"{value} names no step"
        return "s3://bucket/what/a/step/wrote"
    if set(value) == {"Std:JsonGet"}:
        assert resolved(value["Std:JsonGet"]["PropertyFile"])
        return "0" * 64  # what evaluation.json holds where it is asked for: a digest
    if set(value) == {"Std:Join"}:
        return value["Std:Join"]["On"].join(str(part) for part in resolved(value["Std:Join"]["Values"]))
    return {key: resolved(part) for key, part in value.items()}


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("name", [name for name, step in STEPS.items() if step["Type"] in OPERATIONS])
def test_a_steps_arguments_are_a_valid_request(name: str, definition: str) -> None:
    step = STEPS_OF[definition][name]
    model = botocore.session.get_session().get_service_model("sagemaker")
    shape = model.operation_model(OPERATIONS[step["Type"]]).input_shape
    request = resolved(step["Arguments"])
    request |= {key: value for key, value in NAMED_BY_THE_SERVICE.items() if key in shape.required_members}
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    assert list(violations(shape, request, name)) == []


def test_the_time_to_wait_is_asked_for_with_spot_training_and_never_without() -> None:
    # CreateTrainingJob refuses MaxWaitTimeInSeconds where EnableManagedSpotTraining is not true.
    for name, spot in (("definition", False), ("definition_spot", True)):
        trainings = [step["Arguments"] for step in STEPS_OF[name].values() if step["Type"] == "Training"]
        assert [step["EnableManagedSpotTraining"] for step in trainings] == [spot, spot]
        assert ["MaxWaitTimeInSeconds" in step["StoppingCondition"] for step in trainings] == [spot, spot]
        assert ("MaxWaitSeconds" in {p["Name"] for p in DEFINITIONS[name]["Parameters"]}) is spot


def test_the_two_definitions_differ_in_nothing_else() -> None:
    on, off = (json.loads(json.dumps(DEFINITIONS[name])) for name in ("definition_spot", "definition"))
    assert on["Parameters"].pop()["Name"] == "MaxWaitSeconds"
    for step in on["Steps"]:
        if step["Type"] == "Training":
            del step["Arguments"]["StoppingCondition"]["MaxWaitTimeInSeconds"]
            step["Arguments"]["EnableManagedSpotTraining"] = False
    assert on == off


def test_each_candidate_has_its_own_checkpoints() -> None:
    found = {
        resolved(step["Arguments"]["CheckpointConfig"])["S3Uri"]
        for step in STEPS.values()
        if step["Type"] == "Training"
    }
    assert found == {f"s3://bucket/checkpoints/g00000001/{name}" for name in ("old", "new")}


def test_every_kind_of_step_is_known() -> None:
    assert {step["Type"] for step in STEPS.values()} == {*OPERATIONS, "Condition", "Fail"}


def test_every_parameter_is_given_by_the_function_that_starts_the_pipeline() -> None:
    source = (ROOT / "layers/common/truthloop/steps/start_pipeline.py").read_text()
    for parameter in DEFINITIONS["definition_spot"]["Parameters"]:
        assert f'"{parameter["Name"]}":' in source, f"start_pipeline does not pass {parameter['Name']}"


def test_a_wrong_argument_is_found() -> None:
    # Given: what the check above is for
    shape = (
        botocore.session.get_session()
        .get_service_model("sagemaker")
        .operation_model("CreateProcessingJob")
        .input_shape
    )
    request = {**resolved(STEPS["Prepare"]["Arguments"]), "ProcessingJobName": "x", "Colour": "blue"}
    request["ProcessingResources"]["ClusterConfig"]["InstanceType"] = "ml.p3.enormous"
    # Then
    assert "Colour" in ParamValidator().validate(request, shape).generate_report()
    del request["Colour"]
    assert [v for v in violations(shape, request, "Prepare") if "ml.p3.enormous" in v]
