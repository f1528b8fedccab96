"""The committed pipeline definition: what its source generates, and what the rest relies on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.contract import Paths, hyperparameters
from common.inputs import CONTENT_TYPES
from tests.containers.conftest import CONTAINERS
from training.__main__ import ENTRY_POINTS
from training.train import read_job

ROOT = CONTAINERS.parent
SDK_PYTHON = ROOT / ".venv-sdk" / "bin" / "python"
PIPELINE = CONTAINERS / "pipeline"


@pytest.fixture(scope="module")
def definition() -> Any:
    return json.loads((PIPELINE / "definition.json").read_text())


def steps(definition: Any) -> dict[str, Any]:
    found = {step["Name"]: step for step in definition["Steps"]}
    for step in list(found.values()):
        for branch in ("IfSteps", "ElseSteps"):
            found |= {inner["Name"]: inner for inner in step["Arguments"].get(branch, [])}
    return found


def test_the_committed_files_are_what_the_source_generates(tmp_path: Path) -> None:
    if not SDK_PYTHON.exists():
        pytest.fail(
            "the SageMaker SDK is not installed: run `make pipeline`, which installs it, and try again"
        )
    subprocess.run([SDK_PYTHON, "-m", "pipeline.definition", tmp_path], cwd=CONTAINERS, check=True)
    for name in ("definition.json", "definition_spot.json", "template.yaml"):
        assert (tmp_path / name).read_text() == (PIPELINE / name).read_text(), (
            f"containers/pipeline/{name} is not what definition.py generates: run `make pipeline` and commit"
        )


def test_the_steps_and_parameters_are_those_of_the_conventions(definition: Any) -> None:
    assert list(steps(definition)) == [
        "Prepare",
        "TrainOld",
        "TrainNew",
        "Evaluate",
        "CheckGate",
        "RegisterOld",
        "RegisterNew",
        "FailGate",
    ]
    assert {parameter["Name"]: parameter["Type"] for parameter in definition["Parameters"]} == {
        **dict.fromkeys(
            (
                "Generation",
                "DatasetUri",
                "BaseUri",
                "CaptureManifestUri",
                "ExamplesManifestUri",
                "ChampionManifestUri",
                "RunUri",
                "CheckpointUri",
                "TrainingInstanceType",
                "ProcessingInstanceType",
            ),
            "String",
        ),
        **dict.fromkeys(("TrainingInstanceCount", "VolumeSizeGb", "MaxRuntimeSeconds"), "Integer"),
        "Epochs": "Integer",
        "AccuracyThreshold": "Float",
        "ImprovementMargin": "Float",
        "MaximumClassLoss": "Float",
        "HoldoutShare": "Float",
    }


def test_nothing_of_the_machine_that_generated_it_is_left(definition: Any) -> None:
    text = json.dumps(definition)
    assert "123456789012" not in text
    assert "stand-in" not in text
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {
        "JobRoleArn",
        "ModelPackageGroupName",
        "TrainingImageUri",
        "InferenceImageUri",
        "Architectures",
        "ImageSize",
        "ImageChannels",
        "BatchSize",
        "Hyperparameters",
    }


def test_every_parameter_is_used_and_every_reference_exists(definition: Any) -> None:
    text = json.dumps(definition)
    referred = set(re.findall(r'"Get": "Parameters\.(\w+)"', text))
    assert referred == {parameter["Name"] for parameter in definition["Parameters"]}
    assert set(re.findall(r'"Get": "Steps\.(\w+)\.', text)) <= set(steps(definition))


def test_jobs_call_entry_points_that_exist_with_inputs_where_they_look(definition: Any) -> None:
    found = steps(definition)
    for name in ("Prepare", "Evaluate"):
        arguments = found[name]["Arguments"]
        assert arguments["AppSpecification"]["ContainerArguments"] == [name.lower()]
        assert name.lower() in ENTRY_POINTS
        for item in arguments["ProcessingInputs"]:
            assert item["S3Input"]["LocalPath"] == f"/opt/ml/processing/input/{item['InputName']}"
    assert {item["InputName"] for item in found["Prepare"]["Arguments"]["ProcessingInputs"]} == {
        "dataset",
        "base",
        "capture",
        "examples",
    }
    assert {item["InputName"] for item in found["Evaluate"]["Arguments"]["ProcessingInputs"]} == {
        "dataset",
        "holdout",
        "champion",
        "old",
        "new",
    }


def test_both_candidates_train_on_the_instance_that_was_asked_for(definition: Any) -> None:
    parameters = {parameter["Name"]: parameter for parameter in definition["Parameters"]}
    assert parameters["TrainingInstanceType"]["DefaultValue"] == "ml.p3.8xlarge"
    for candidate in ("old", "new"):
        arguments = steps(definition)[f"Train{candidate.title()}"]["Arguments"]
        assert arguments["HyperParameters"]["candidate"] == candidate
        assert arguments["ResourceConfig"]["InstanceType"] == {"Get": "Parameters.TrainingInstanceType"}
        metrics = arguments["AlgorithmSpecification"]["MetricDefinitions"]
        assert "train_loss" in {metric["Name"] for metric in metrics}


def test_both_candidates_wait_for_approval_with_what_decides_about_them(definition: Any) -> None:
    for candidate in ("old", "new"):
        arguments = steps(definition)[f"Register{candidate.title()}"]["Arguments"]
        assert arguments["ModelApprovalStatus"] == "PendingManualApproval"
        properties = arguments["CustomerMetadataProperties"]
        assert sorted(properties) == [
            "candidate",
            "datasetUri",
            "evaluationUri",
            "generation",
            "labelsUri",
            "reportUri",
        ]
        assert properties["candidate"] == candidate
        (container,) = arguments["InferenceSpecification"]["Containers"]
        assert container["ModelDataUrl"] == {
            "Get": f"Steps.Train{candidate.title()}.ModelArtifacts.S3ModelArtifacts"
        }
        (digest,) = container["Environment"].values()
        assert digest["Std:JsonGet"]["Path"] == f"models.{candidate}.weightsSha256"
        assert arguments["InferenceSpecification"]["SupportedContentTypes"] == list(CONTENT_TYPES)


def test_no_job_reaches_the_network(definition: Any) -> None:
    found = steps(definition)
    for name in ("TrainOld", "TrainNew"):
        assert found[name]["Arguments"]["EnableNetworkIsolation"] is True
    for name in ("Prepare", "Evaluate"):
        assert found[name]["Arguments"]["NetworkConfig"] == {"EnableNetworkIsolation": True}


def test_the_hyperparameters_are_those_that_training_reads(definition: Any, tmp_path: Path) -> None:
    placeholders = {
        "${Architectures}": "convmixer,convnet",
        "${BatchSize}": "32",
        "${ImageSize}": "24",
        "${ImageChannels}": "3",
        "${Hyperparameters}": "label_smoothing=0.1,class_weights=balanced",
    }
    path = Paths(tmp_path).config("hyperparameters")
    path.parent.mkdir(parents=True)
    for name in ("TrainOld", "TrainNew"):
        given = {
            key: placeholders.get(value, value) if isinstance(value, str) else "1"
            for key, value in steps(definition)[name]["Arguments"]["HyperParameters"].items()
        }
        path.write_text(json.dumps(given))
        job = read_job(hyperparameters(Paths(tmp_path)))
        assert (job.shape.image_size, job.shape.channels, job.settings.batch_size) == (24, 3, 32)
        assert job.architectures == ("convmixer", "convnet")
        assert (job.settings.label_smoothing, job.class_weights) == (0.1, "balanced")


class _Template(yaml.SafeLoader):
    """YAML with CloudFormation's short forms as ``{tag: value}``."""


_Template.add_multi_constructor(
    "!",
    lambda loader, tag, node: {
        tag: loader.construct_sequence(node, deep=True)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_scalar(node)
    },
)


def test_the_template_holds_the_definition_and_passes_cfn_lint(definition: Any) -> None:
    template = yaml.load((PIPELINE / "template.yaml").read_text(), _Template)
    properties = template["Resources"]["Pipeline"]["Properties"]
    condition, with_spot, without = properties["PipelineDefinition"]["PipelineDefinitionBody"]["If"]
    assert condition == "UsesSpot"
    assert json.loads(without["Sub"]) == definition
    assert json.loads(with_spot["Sub"]) == json.loads((PIPELINE / "definition_spot.json").read_text())
    assert sorted(template["Parameters"]) == [
        "Architectures",
        "BatchSize",
        "Hyperparameters",
        "ImageChannels",
        "ImageSize",
        "InferenceImageUri",
        "JobRoleArn",
        "ModelPackageGroupName",
        "PipelineName",
        "PipelineRoleArn",
        "TrainingImageUri",
        "UseSpotTraining",
    ]
    lint = [Path(sys.executable).parent / "cfn-lint", PIPELINE / "template.yaml"]
    found = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
