"""What a team sets arrives where its name says: from the template to the jobs and the endpoint's server.

A margin in the place of a bound, or the training images in the place of the holdout, is a valid request to
every service on the way.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from common.contract import BASE_DIR, Paths
from common.logs import METRIC_DEFINITIONS

ROOT = Path(__file__).resolve().parents[2]
PATHS = Paths(BASE_DIR)
JOBS = ("Prepare", "TrainOld", "TrainNew", "Evaluate")


@cache
def template() -> dict[str, Any]:
    return dict(yaml_parse((ROOT / "template.yaml").read_text()))


@cache
def steps(name: str) -> dict[str, Any]:
    """Return the arguments of each step, those of both branches too."""
    definition = json.loads((ROOT / f"containers/pipeline/{name}.json").read_text())
    found = {step["Name"]: step["Arguments"] for step in definition["Steps"]}
    gate = found["CheckGate"]
    return found | {step["Name"]: step["Arguments"] for step in gate["IfSteps"] + gate["ElseSteps"]}


def told(value: Any) -> Any:
    """Write a definition's reference as text: ``<RunUri>/prepared/train``."""
    if not isinstance(value, dict):
        return value
    if "Get" in value:
        return f"<{value['Get'].removeprefix('Parameters.')}>"
    if "Std:JsonGet" in value:
        return f"<{value['Std:JsonGet']['PropertyFile']['Get']} {value['Std:JsonGet']['Path']}>"
    return value["Std:Join"]["On"].join(str(told(part)) for part in value["Std:Join"]["Values"])


# -- from the template to the functions and the pipeline ---------------------------------------------------

OTHER_NAMES = {
    "POLICY": {
        "approval": "ApprovalMode",
        "trainingImageArchitectures": "ImageArchitectures",
        "accuracyAlarmName": "AWS::StackName",
        "codeVersion": "TrainingImageUri",
    },
    "DEPLOYMENT": {
        "instanceType": "EndpointInstanceType",
        "instanceCount": "EndpointInstanceCount",
        "alarmNames": "AlarmName",
    },
    "MONITOR": {
        "instanceType": "ProcessingInstanceType",
        "minimumLabels": "MonitorMinimumLabels",
        "frequency": "MonitorFrequency",
    },
}


@pytest.mark.parametrize("variable", OTHER_NAMES)
def test_a_setting_is_the_parameter_of_its_name(variable: str) -> None:
    where = template()["Globals"]["Function"]
    if variable == "MONITOR":
        where = template()["Resources"]["RunMonitorFunction"]["Properties"]
    text = where["Environment"]["Variables"][variable]["Fn::Sub"][0]
    found = dict(re.findall(r'"(\w+)": \W*?\$\{([\w:]+)\}', text))
    assert len(found) > 5
    others = OTHER_NAMES[variable]
    assert found == {name: others.get(name, name[0].upper() + name[1:]) for name in found}
    assert others.keys() <= found.keys()


def test_the_pipelines_parameters_are_the_templates_of_the_same_name() -> None:
    given = template()["Resources"]["TrainingPipeline"]["Properties"]["Parameters"]
    plain = ("Architectures", "ImageSize", "ImageChannels", "BatchSize", "Hyperparameters", "UseSpotTraining")
    assert {name: given[name] for name in plain} == {name: {"Ref": name} for name in plain}
    for name in ("TrainingImageUri", "InferenceImageUri"):
        image = name.removesuffix("Uri")
        condition, named, usual = given[name]["Fn::If"]
        assert (condition, named) == (f"Names{image}", {"Ref": name})
        assert usual["Fn::Sub"].endswith(f"/truthloop-{image.removesuffix('Image').lower()}:latest")


# -- from the pipeline to the jobs -------------------------------------------------------------------------


def sources(arguments: dict[str, Any]) -> dict[str, str]:
    """Return where each input of a job comes from, by name."""
    found = {
        item["InputName"]: item["S3Input"]["S3Uri"] for item in arguments.get("ProcessingInputs", [])
    } | {
        item["ChannelName"]: item["DataSource"]["S3DataSource"]["S3Uri"]
        for item in arguments.get("InputDataConfig", [])
    }
    return {name: told(uri) for name, uri in found.items()}


def test_each_job_reads_what_it_is_about() -> None:
    prepared = "<Steps.Prepare.ProcessingOutputConfig.Outputs['{}'].S3Output.S3Uri>"
    training = {"train": prepared.format("train"), "champion": "<ChampionManifestUri>"}
    assert {name: sources(steps("definition")[name]) for name in JOBS} == {
        "Prepare": {
            "dataset": "<DatasetUri>",
            "base": "<BaseUri>",
            "capture": "<CaptureManifestUri>",
            "examples": "<ExamplesManifestUri>",
        },
        "TrainOld": training,
        "TrainNew": training,
        "Evaluate": {
            "dataset": "<DatasetUri>",
            "holdout": prepared.format("holdout"),
            "champion": "<ChampionManifestUri>",
            "old": "<Steps.TrainOld.ModelArtifacts.S3ModelArtifacts>",
            "new": "<Steps.TrainNew.ModelArtifacts.S3ModelArtifacts>",
        },
    }


def test_what_a_job_writes_lies_where_its_container_writes_it_and_apart_from_the_rest() -> None:
    outputs = [
        (item["OutputName"], item["S3Output"]["LocalPath"], told(item["S3Output"]["S3Uri"]))
        for name in ("Prepare", "Evaluate")
        for item in steps("definition")[name]["ProcessingOutputConfig"]["Outputs"]
    ]
    assert outputs == [
        *(
            (name, f"{BASE_DIR}/processing/output/{name}", f"<RunUri>/prepared/{name}")
            for name in ("train", "holdout", "report")
        ),
        ("evaluation", f"{BASE_DIR}/processing/output/evaluation", "<RunUri>/evaluation"),
    ]
    for name in ("TrainOld", "TrainNew"):
        checkpoints = steps("definition")[name]["CheckpointConfig"]
        assert checkpoints["LocalPath"] == str(PATHS.checkpoints)
        assert told(checkpoints["S3Uri"]) == f"<CheckpointUri>/{name.removeprefix('Train').lower()}"


def test_a_jobs_environment_is_the_parameter_of_its_name() -> None:
    found = {
        name: {key: told(value) for key, value in steps("definition")[name]["Environment"].items()}
        for name in ("Prepare", "Evaluate")
    }
    assert found == {
        "Prepare": {"HOLDOUT_SHARE": "<HoldoutShare>"},
        "Evaluate": {
            "ACCURACY_THRESHOLD": "<AccuracyThreshold>",
            "IMPROVEMENT_MARGIN": "<ImprovementMargin>",
            "MAXIMUM_CLASS_LOSS": "<MaximumClassLoss>",
        },
    }


@pytest.mark.parametrize("definition", ["definition", "definition_spot"])
def test_every_job_ends_when_it_was_asked_to(definition: str) -> None:
    waiting = {"MaxWaitTimeInSeconds": "<MaxWaitSeconds>"} if definition == "definition_spot" else {}
    for name in JOBS:
        limits = {key: told(value) for key, value in steps(definition)[name]["StoppingCondition"].items()}
        expected = {"MaxRuntimeInSeconds": "<MaxRuntimeSeconds>"}
        assert limits == expected | (waiting if name.startswith("Train") else {})


@pytest.mark.parametrize("candidate", ["old", "new"])
def test_a_candidate_is_trained_as_it_was_asked_for(candidate: str) -> None:
    arguments = steps("definition")[f"Train{candidate.title()}"]
    assert {key: told(value) for key, value in arguments["HyperParameters"].items()} == {
        "candidate": candidate,
        "generation": "<Generation>",
        "epochs": "<Epochs>",
        "architectures": "${Architectures}",
        "batch_size": "${BatchSize}",
        "image_size": "${ImageSize}",
        "channels": "${ImageChannels}",
        "seed": "0",
        "more": "${Hyperparameters}",
    }
    assert arguments["AlgorithmSpecification"]["MetricDefinitions"] == METRIC_DEFINITIONS
    # Shards are read once, as they come; a manifest, of which FastFile knows nothing, is copied before.
    modes = {item["ChannelName"]: item["InputMode"] for item in arguments["InputDataConfig"]}
    assert modes == {"train": "FastFile", "champion": "File"}
    kinds = {
        item["ChannelName"]: item["DataSource"]["S3DataSource"]["S3DataType"]
        for item in arguments["InputDataConfig"]
    }
    assert kinds == {"train": "S3Prefix", "champion": "ManifestFile"}


# -- from the evaluation to the endpoint -------------------------------------------------------------------


def test_the_gate_is_the_evaluations() -> None:
    (condition,) = steps("definition")["CheckGate"]["Conditions"]
    assert told(condition["LeftValue"]) == "<Steps.Evaluate.PropertyFiles.Evaluation gate.passed>"
    assert (condition["Type"], condition["RightValue"]) == ("Equals", 1)
    taken = [step["Name"] for step in steps("definition")["CheckGate"]["IfSteps"]]
    assert taken == ["RegisterOld", "RegisterNew"]


@pytest.mark.parametrize("candidate", ["old", "new"])
def test_a_package_serves_and_shows_its_own_candidate(candidate: str) -> None:
    arguments = steps("definition")[f"Register{candidate.title()}"]
    (container,) = arguments["InferenceSpecification"]["Containers"]
    assert container["Image"] == "${InferenceImageUri}"
    # The variable that the server reads: without it, it serves whatever weights it finds.
    assert {key: told(value) for key, value in container["Environment"].items()} == {
        "MODEL_SHA256": f"<Steps.Evaluate.PropertyFiles.Evaluation models.{candidate}.weightsSha256>"
    }
    run = "<RunUri>/evaluation"
    statistics = arguments["ModelMetrics"]["ModelQuality"]["Statistics"]
    assert told(statistics["S3Uri"]) == f"{run}/{candidate}/statistics.json"
    assert {key: told(value) for key, value in arguments["CustomerMetadataProperties"].items()} == {
        "generation": "<Generation>",
        "candidate": candidate,
        "datasetUri": "<DatasetUri>",
        "evaluationUri": f"{run}/evaluation.json",
        "labelsUri": f"{run}/labels.json",
        "reportUri": f"{run}/{candidate}/report.html",
    }
