"""Which image runs on which instance type, as the code, the documentation and the lock have it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truthloop.instances.hardware import (
    FAMILIES,
    INFERENCE_AMI,
    OTHER_ACCELERATORS,
    SHIPPED_ARCHITECTURES,
    SUCCESSORS,
    TRAINING_INSTANCES,
    Gpu,
    hardware,
    inference_ami,
    judge_image,
    runs_on,
)
from truthloop.instances.prices import PRICES_AS_OF, USD_PER_HOUR
from truthloop.retraining.decision import StepResult, is_costless, lacked_instances

ROOT = Path(__file__).resolve().parents[2]


def gpu(capability: str) -> Gpu:
    major, minor = capability.split(".")
    return Gpu("any", (int(major), int(minor)), 16)


@pytest.mark.parametrize(
    ("built", "device", "chosen"),
    [
        # binaries: the same major, and a minor that is not lower
        ("sm_70", "7.0", "sm_70"),
        ("sm_70", "7.5", "sm_70"),
        ("sm_75", "7.0", None),
        ("sm_80", "8.9", "sm_80"),
        ("sm_86", "8.0", None),
        ("sm_80 sm_86", "8.9", "sm_86"),
        ("sm_86", "9.0", None),
        ("sm_90", "10.0", None),
        ("sm_100", "10.3", "sm_100"),
        ("sm_100", "12.0", None),
        # PTX: every capability from its own on
        ("compute_60", "7.0", "compute_60"),
        ("compute_90", "12.0", "compute_90"),
        ("compute_90", "8.9", None),
        ("compute_80 sm_90", "9.0", "sm_90"),
        # for exactly one capability, or one family
        ("sm_90a", "9.0", "sm_90a"),
        ("sm_100a", "10.3", None),
        ("compute_90a", "10.0", None),
        ("compute_90a", "9.0", "compute_90a"),
        ("sm_100f", "10.3", "sm_100f"),
        ("compute_100f", "12.0", None),
        ("gfx90a", "9.0", None),
        ("", "7.0", None),
    ],
)
def test_a_build_serves_what_cuda_says_it_serves(built: str, device: str, chosen: str | None) -> None:
    assert runs_on(built.split(), gpu(device)) == chosen


@given(
    st.lists(st.sampled_from([*SHIPPED_ARCHITECTURES, "sm_100", "compute_80", "sm_90a"])),
    st.sampled_from("0123"),
)
def test_more_kernels_never_serve_less(built: list[str], minor: str) -> None:
    for major in ("7", "8", "9", "10", "12"):
        device = gpu(f"{major}.{minor}")
        if runs_on(built, device) is not None:
            assert runs_on([*built, "sm_75"], device) is not None


def test_the_shipped_image_serves_the_default_and_its_successors() -> None:
    for instance_type in ("ml.p3.8xlarge", *SUCCESSORS):
        assert judge_image(instance_type, SHIPPED_ARCHITECTURES)[0]
        assert hardware(instance_type).count == 4


@pytest.mark.parametrize(
    ("instance_type", "passed", "said"),
    [
        ("ml.p3.8xlarge", True, "4 × V100 (sm_70); the image's sm_70 kernels run on it"),
        ("ml.g6e.12xlarge", True, "4 × L40S (sm_89); the image's sm_86 kernels run on it"),
        ("ml.p5.48xlarge", True, "8 × H100 (sm_90); the image's sm_90 kernels run on it"),
        (
            "ml.g7e.48xlarge",
            False,
            "8 × RTX PRO 6000 Blackwell (sm_120), and the training image has no kernels",
        ),
        ("ml.p6-b200.48xlarge", False, "8 × B200 (sm_100), and the training image has no kernels for it"),
        ("ml.c7g.8xlarge", False, "Arm processors"),
        ("ml.p2.xlarge", False, "1 × K80 (sm_37), and the training image has no kernels for it"),
        ("ml.p6e-gb200.36xlarge", False, "Arm processors"),
        ("ml.trn1.32xlarge", False, "Trainium, which the training image does not serve"),
        ("ml.g9x.12xlarge", False, "it is not known which GPU ml.g9x.12xlarge has"),
        ("ml.p7.48xlarge", False, "choose another TrainingInstanceType"),
        ("nonsense", False, "it is not known"),
        ("ml.m5.xlarge", True, "has no GPU: the image trains there, slowly"),
        ("ml.c7i-flex.8xlarge", True, "has no GPU"),
    ],
)
def test_an_instance_type_is_judged_with_what_to_do(instance_type: str, passed: bool, said: str) -> None:
    assert judge_image(instance_type, SHIPPED_ARCHITECTURES)[0] is passed
    assert said in judge_image(instance_type, SHIPPED_ARCHITECTURES)[1]


def test_every_type_that_sagemaker_trains_on_is_known() -> None:
    model: Any = botocore.session.get_session().get_service_model("sagemaker")
    families = {kind.split(".")[1] for kind in model.shape_for("TrainingInstanceType").enum}
    unknown = {family for family in families if not hardware(f"ml.{family}.xlarge").known}
    assert unknown == set()
    cpu = {family for family in families if family not in {*FAMILIES, *OTHER_ACCELERATORS}}
    assert {family[0] for family in cpu} == set("cmrt")


def test_what_is_priced_is_known() -> None:
    assert all(hardware(kind).known for kind in USD_PER_HOUR)


def test_the_shipped_architectures_are_those_of_the_locked_torch() -> None:
    # Another version has other kernels: look them up (hardware.py says where) before this is changed.
    for image in ("base", "training", "inference"):
        lock = (ROOT / f"containers/{image}/requirements.txt").read_text()
        assert re.findall(r"^torch==(\S+)", lock, re.MULTILINE) == ["2.7.1"]
        assert re.search(r"^nvidia-cuda-runtime-cu12==12\.6\.", lock, re.MULTILINE)


def endpoint_types() -> list[str]:
    """Every instance type that SageMaker has for endpoints."""
    model: Any = botocore.session.get_session().get_service_model("sagemaker")
    return list(model.shape_for("ProductionVariantInstanceType").enum)


def test_the_template_takes_the_endpoint_types_that_the_image_serves() -> None:
    text = (ROOT / "template.yaml").read_text()
    found = re.search(r"EndpointInstanceType:\n.*\n.*\n +AllowedPattern: (\S+)", text)
    assert found is not None
    pattern = re.compile(found[1])
    for kind in endpoint_types():
        assert bool(pattern.fullmatch(kind)) is judge_image(kind, SHIPPED_ARCHITECTURES)[0], kind


def test_packages_are_registered_for_types_that_the_image_serves() -> None:
    text = (ROOT / "containers/pipeline/definition.json").read_text()
    lists = re.findall(r'"SupportedRealtimeInferenceInstanceTypes": (\[[^]]*\])', text)
    assert lists
    for kind in {kind for each in lists for kind in json.loads(each)}:
        assert kind in endpoint_types()
        assert judge_image(kind, SHIPPED_ARCHITECTURES)[0], kind


@pytest.mark.parametrize(
    ("instance_type", "ami"),
    [
        ("ml.g4dn.xlarge", INFERENCE_AMI),
        ("ml.p3.2xlarge", INFERENCE_AMI),
        ("ml.g5.xlarge", INFERENCE_AMI),
        ("ml.g6.xlarge", None),
        ("ml.p5.48xlarge", None),
        ("ml.m5.large", None),
    ],
)
def test_an_endpoint_gets_a_driver_for_cuda_12(instance_type: str, ami: str | None) -> None:
    assert inference_ami(instance_type) == ami
    model: Any = botocore.session.get_session().get_service_model("sagemaker")
    assert INFERENCE_AMI in model.shape_for("ProductionVariantInferenceAmiVersion").enum


def test_a_run_needs_the_instances_that_its_definition_asks_for() -> None:
    # TRAINING_INSTANCES of them for each instance of a job: policy.instances_needed multiplies.
    steps = json.loads((ROOT / "containers/pipeline/definition.json").read_text())["Steps"]
    asked = [step["Arguments"]["ResourceConfig"] for step in steps if step["Type"] == "Training"]
    assert all(each["InstanceType"] == {"Get": "Parameters.TrainingInstanceType"} for each in asked)
    assert all(each["InstanceCount"] == {"Get": "Parameters.TrainingInstanceCount"} for each in asked)
    assert len(asked) == TRAINING_INSTANCES


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs/instances.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    table = {row[0].strip("`"): row[1:] for row in rows if row[0].startswith("`ml.")}
    endpoints = {kind.split(".")[1] for kind in endpoint_types()}
    assert table == {
        f"ml.{family}": [
            found.name,
            f"{found.memory_gb} GB",
            ", ".join(f"{count} in {size}" for size, count in sizes.items()),
            f"{found.capability[0]}.{found.capability[1]}",
            f"yes (`{chosen}`)" if (chosen := _served(found)) else "no",
            "not offered" if family not in endpoints else _serves(family, chosen),
        ]
        for family, (found, sizes) in FAMILIES.items()
    }
    assert INFERENCE_AMI in text
    for name in SHIPPED_ARCHITECTURES:
        assert f"`{name}`" in text
    assert PRICES_AS_OF in text


def _serves(family: str, chosen: str | None) -> str:
    if chosen is None:
        return "no"
    return f"yes (`{chosen}`), driver 535" if inference_ami(f"ml.{family}.xlarge") else f"yes (`{chosen}`)"


def _served(found: Gpu) -> str | None:
    return None if found.arm else runs_on(SHIPPED_ARCHITECTURES, found)


TAKEN = (
    "The account-level service limit 'ml.p3.8xlarge for training job usage' is 2 Instances, with current "
    "utilization of 1 Instances and a request delta of 1 Instances."
)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("ClientError: CapacityError: Unable to provision requested ML compute capacity.", True),
        ("step TrainNew failed: InsufficientInstanceCapacity error", True),
        (f"ClientError: Failed to invoke sagemaker:CreateTrainingJob. Error Details: {TAKEN}", True),
        (f"An error occurred (ResourceLimitExceeded) when calling CreateTrainingJob: {TAKEN}", True),
        ("AlgorithmError: CUDA out of memory", False),
        ("", False),
    ],
)
def test_a_lack_of_instances_is_told_from_other_failures(reason: str, expected: bool) -> None:
    assert lacked_instances(reason) is expected


NO_INSTANCE = "ClientError: CapacityError: Unable to provision requested ML compute capacity."


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((("TrainOld", "Failed", NO_INSTANCE), ("TrainNew", "Failed", TAKEN)), True),
        ((("Prepare", "Failed", NO_INSTANCE),), True),
        ((("Prepare", "Succeeded", ""), ("TrainOld", "Failed", NO_INSTANCE)), True),
        ((("TrainOld", "Failed", NO_INSTANCE), ("TrainNew", "Succeeded", "")), False),
        ((("TrainOld", "Failed", NO_INSTANCE), ("TrainNew", "Stopped", "")), False),
        ((("TrainOld", "Failed", NO_INSTANCE), ("TrainNew", "Failed", "out of memory")), False),
        ((("TrainOld", "Failed", NO_INSTANCE), ("TrainNew", "Failed", "")), False),
        ((("TrainNew", "Succeeded", ""), ("Evaluate", "Failed", NO_INSTANCE)), False),
        ((), False),
    ],
)
def test_a_run_is_costless_only_when_nothing_was_trained(
    steps: tuple[tuple[str, str, str], ...], expected: bool
) -> None:
    known = [StepResult(name, status, reason, None) for name, status, reason in steps]
    assert is_costless(known) is expected
