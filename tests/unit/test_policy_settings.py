"""What POLICY may hold, and what is said about what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from truthloop.errors import SettingsError
from truthloop.settings import POLICY, PolicySettings, Settings

REQUIRED = {
    "minimumNewLabels": "100",
    "cooldownMinutes": 1440,
    "monthlySpendCapUsd": 1500,
    "expectedInstanceHours": 24,
    "trainingInstanceType": "ml.p3.8xlarge",
    "processingInstanceType": "ml.m5.xlarge",
    "maxRuntimeSeconds": 172800,
    "accuracyThreshold": 0.85,
    "improvementMargin": 0.0,
    "holdoutShare": 0.2,
    "epochs": 30,
    "approval": "manual",
    "codeVersion": "c1",
}


def read(**more: Any) -> PolicySettings:
    return Settings({POLICY: json.dumps(REQUIRED | more)}).policy


def test_what_is_optional_has_the_defaults_of_the_conventions() -> None:
    policy = read()
    assert policy.minimum_new_labels == 100
    assert (policy.minimum_new_labels_per_class, policy.maximum_model_age_days) == (0, 0)
    assert (policy.maximum_author_share, policy.conflict_resolution) == (1, "set-aside")
    assert (policy.capture_horizon_hours, policy.capture_wait_minutes) == (24, 30)
    assert (policy.training_image_architectures, policy.accuracy_alarm_name) == ((), "")
    assert policy.instance_price_usd == 0
    assert (policy.maximum_class_loss, policy.training_instance_count, policy.volume_size_gb) == (0.1, 1, 100)
    assert (policy.use_spot_training, policy.max_wait_seconds) == (False, 259_200)


def test_what_is_given_is_read() -> None:
    policy = read(
        minimumNewLabelsPerClass=5,
        maximumModelAgeDays="90",
        maximumAuthorShare=0.3,
        conflictResolution="majority",
        captureHorizonHours=0.5,
        captureWaitMinutes=0,
        trainingImageArchitectures=["sm_70", "sm_90a", "compute_120", ""],
        accuracyAlarmName="truthloop-accuracy",
    )
    assert policy.maximum_model_age_days == 90
    assert policy.training_image_architectures == ("sm_70", "sm_90a", "compute_120")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("approval", "maybe", "auto or manual"),
        ("conflictResolution", "loudest", "set-aside or majority"),
        ("maximumAuthorShare", 0, "above 0 and at most 1"),
        ("maximumAuthorShare", 1.01, "above 0 and at most 1"),
        ("maximumAuthorShare", "NaN", "above 0 and at most 1"),
        ("minimumNewLabelsPerClass", -1, "0 or more"),
        ("maximumModelAgeDays", -1, "0 or more"),
        ("maximumModelAgeDays", "soon", "not readable"),
        ("captureWaitMinutes", -0.5, "0 or more"),
        ("captureHorizonHours", 0, "above 0"),
        ("trainingImageArchitectures", ["7.0"], "torch.cuda.get_arch_list()"),
        ("trainingImageArchitectures", "sm_70", "not a list"),
        ("minimumLabels", 3, "unknown keys"),
        ("trainingInstanceCount", 0, "at least 1"),
        ("useSpotTraining", "perhaps", "not readable"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(key: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{key: value})
    assert key in str(raised.value)
    assert said in str(raised.value)


def test_spot_training_is_on_or_off_as_json_or_as_text() -> None:
    assert read(useSpotTraining=True).use_spot_training is True
    assert read(useSpotTraining="true").use_spot_training is True
    assert read(useSpotTraining="false").use_spot_training is False


def test_a_spot_run_may_wait_no_shorter_than_it_may_run() -> None:
    assert read(useSpotTraining=False, maxWaitSeconds=60).max_wait_seconds == 60
    assert read(useSpotTraining=True, maxWaitSeconds=172_800).max_wait_seconds == 172_800
    with pytest.raises(SettingsError, match="MaxWaitSeconds"):
        read(useSpotTraining=True, maxWaitSeconds=172_799)
