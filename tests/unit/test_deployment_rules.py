"""The reconciler's plan, the deployment's configuration, the smoke test's judgement, the monitor's window."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from truthloop.errors import InvalidEvent, SettingsError, SmokeTestFailed
from truthloop.inputs import MonitorInput
from truthloop.names import generation_name, generation_number, resource_name, split_uri
from truthloop.serving.deployment import (
    EndpointState,
    choose_examples,
    deployment_config,
    endpoint_config,
    judge_answer,
    judge_labels,
    plan_action,
    plan_target,
)
from truthloop.serving.monitor import Window, captures_of, job_name, plan_window
from truthloop.serving.registry import ModelPackage
from truthloop.settings import DeploymentSettings, Settings

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SETTINGS = DeploymentSettings("ml.g4dn.xlarge", 1, "role", 600, ("alarm",), "AllTraffic", 100)
PACKAGE = ModelPackage("arn:x:model-package/m/3", 3, "Approved", NOW, "s3://b/model.tar.gz")
TARGET = plan_target("endpoint", PACKAGE, SETTINGS)


def endpoint(status: str = "InService", config: str = "other") -> EndpointState:
    return EndpointState(status, config, None, NOW, "no capacity")


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (None, "CREATE"),
        (endpoint(), "UPDATE"),
        (endpoint("OutOfService"), "UPDATE"),
        (endpoint(config=TARGET.config_name), "NONE"),
        (endpoint("Updating"), "WAIT"),
        (endpoint("Creating"), "WAIT"),
        (endpoint("RollingBack"), "WAIT"),
        (endpoint("SystemUpdating"), "WAIT"),
        (endpoint("Deleting"), "WAIT"),
        (endpoint("Failed"), "RECREATE"),
        (endpoint("UpdateRollbackFailed"), "RECREATE"),
    ],
)
def test_one_action_for_every_state(state: EndpointState | None, action: str) -> None:
    assert plan_action(TARGET, state)[0] == action
    assert plan_action(None, state)[0] == "NONE"


def test_names_say_what_they_hold_and_fit() -> None:
    assert TARGET.model_name.startswith("endpoint-v3-")
    again = plan_target("endpoint", PACKAGE, SETTINGS)
    assert again == TARGET
    other = plan_target("endpoint", PACKAGE, replace(SETTINGS, bake_seconds=1))
    assert (other.model_name, other.config_name != TARGET.config_name) == (TARGET.model_name, True)
    reborn = plan_target("endpoint", replace(PACKAGE, created_at=NOW + timedelta(days=1)), SETTINGS)
    assert reborn.model_name != TARGET.model_name
    assert len(plan_target("e" * 63, PACKAGE, SETTINGS).config_name) <= 63


def test_one_instance_switches_at_once_with_a_bake() -> None:
    config = deployment_config(SETTINGS)
    policy = config["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    assert policy["TerminationWaitInSeconds"] == 600
    assert policy["MaximumExecutionTimeoutInSeconds"] == 3000


@pytest.mark.parametrize("count", [2, 3, 10])
def test_more_instances_get_a_canary_of_at_most_half(count: int) -> None:
    config = deployment_config(replace(SETTINGS, instance_count=count))
    routing = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing["Type"] == "CANARY"
    assert routing["CanarySize"]["Value"] / count <= 0.5


def test_without_alarms_there_is_no_rollback_configuration() -> None:
    assert "AutoRollbackConfiguration" not in deployment_config(replace(SETTINGS, alarm_names=()))


@pytest.mark.parametrize("bake", [0, 600, 3600])
def test_the_time_limit_is_one_that_sagemaker_takes(bake: int) -> None:
    policy = deployment_config(replace(SETTINGS, bake_seconds=bake))["BlueGreenUpdatePolicy"]
    assert 600 <= policy["MaximumExecutionTimeoutInSeconds"] <= 28800


def test_the_variant_names_a_host_image_where_the_default_driver_is_too_old() -> None:
    (variant,) = endpoint_config(TARGET, SETTINGS, "bucket")["ProductionVariants"]
    assert variant["InstanceType"] == "ml.g4dn.xlarge"
    assert variant["InferenceAmiVersion"] == "al2-ami-sagemaker-inference-gpu-2"
    (variant,) = endpoint_config(TARGET, replace(SETTINGS, instance_type="ml.g6.xlarge"), "bucket")[
        "ProductionVariants"
    ]
    assert "InferenceAmiVersion" not in variant


def test_every_configuration_captures() -> None:
    capture = endpoint_config(TARGET, SETTINGS, "bucket")["DataCaptureConfig"]
    assert capture["EnableCapture"] is True
    assert capture["DestinationS3Uri"] == "s3://bucket/capture"


def test_examples_are_spread_over_the_labels() -> None:
    keys = [f"smoke-test/{label}/{i}.png" for label in "ab" for i in range(4)]
    keys += ["smoke-test/readme.png", "smoke-test/a/x.txt"]
    assert [label for _, label in choose_examples(keys, "smoke-test/")] == ["a", "b", "a", "b", "a"]
    assert choose_examples([], "smoke-test/") == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"label": "7", "score": 2}', b'{"label": "7", "score": "NaN"}']
)
def test_what_is_no_prediction(body: bytes) -> None:
    with pytest.raises(SmokeTestFailed):
        judge_answer(body, "key")


def test_more_than_half_must_be_right() -> None:
    judge_labels(list("11111"), list("11122"))
    judge_labels([], [])
    with pytest.raises(SmokeTestFailed, match="only 1 of 2"):
        judge_labels(list("11"), list("12"))


# -- monitor -----------------------------------------------------------------------------------------------


def test_a_scheduled_window_is_one_period() -> None:
    event = {"scheduledTime": "2026-11-22T10:00:00Z"}
    assert plan_window(MonitorInput.parse(event), "daily", NOW, None).start == NOW - timedelta(days=1)
    assert plan_window(MonitorInput.parse(event), "weekly", NOW, None) == Window(NOW - timedelta(days=7), NOW)
    assert plan_window(MonitorInput.parse({}), "daily", NOW, None).end == NOW


def test_an_earlier_models_predictions_say_nothing() -> None:
    since = NOW - timedelta(hours=1)
    assert plan_window(MonitorInput.parse({}), "daily", NOW, since).start == since
    by_hand = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
    assert plan_window(MonitorInput.parse(by_hand), "daily", NOW, since).start == datetime(
        2026, 11, 1, tzinfo=UTC
    )


UNREADABLE: list[dict[str, Any]] = [
    {"scheduledTime": "noon"},
    {"end": "2026-11-22"},
    {"start": 1, "end": 2},
    {"start": "2026-11-22", "end": "2026-11-21"},
    {"start": "2020-11-22", "end": "2026-11-21"},
]


@pytest.mark.parametrize("event", UNREADABLE)
def test_an_unreadable_window_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent):
        plan_window(MonitorInput.parse(event), "daily", NOW, None)


def test_a_window_reads_every_hour_that_it_touches() -> None:
    window = Window(NOW - timedelta(minutes=61), NOW)
    assert list(window.hours()) == ["2026/11/22/08", "2026/11/22/09"]
    keys = [f"capture/e/v/2026/11/22/{hour}/x.jsonl" for hour in ("07", "08", "09", "10")]
    assert captures_of(keys, window) == keys[1:3]
    assert job_name("e", window) == job_name("e", Window(window.start, window.end))


# -- names and settings ------------------------------------------------------------------------------------


def test_names() -> None:
    assert generation_number(generation_name(7)) == 7
    assert resource_name("a" * 80, "b") == "a" * 61 + "-b"
    assert split_uri("s3://b/k/l") == ("b", "k/l")
    for wrong in ("7", "g7", "g0000000x"):
        with pytest.raises(ValueError, match="not a generation"):
            generation_number(wrong)
    with pytest.raises(ValueError, match="not an S3 URI"):
        split_uri("https://x")


POLICY = {
    "minimumNewLabels": "100",
    "cooldownMinutes": 1440,
    "monthlySpendCapUsd": "1500",
    "expectedInstanceHours": 24,
    "trainingInstanceType": "ml.p3.8xlarge",
    "processingInstanceType": "ml.m5.xlarge",
    "maxRuntimeSeconds": 172800,
    "accuracyThreshold": "0.85",
    "improvementMargin": 0.0,
    "holdoutShare": 0.2,
    "epochs": 30,
    "approval": "manual",
    "codeVersion": "c1",
}


def test_settings_read_text_as_numbers() -> None:
    policy = Settings({"POLICY": json.dumps(POLICY)}).policy
    assert (policy.minimum_new_labels, policy.accuracy_threshold) == (100, 0.85)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "POLICY is not set"),
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        (json.dumps({**POLICY, "aproval": "auto"}), "unknown keys .'aproval'."),
        (json.dumps({"epochs": 1}), "missing keys"),
        (json.dumps({**POLICY, "epochs": "many"}), "epochs is 'many'"),
        (json.dumps({**POLICY, "approval": "maybe"}), "must be auto or manual"),
    ],
)
def test_a_wrong_setting_is_named(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _ = Settings({"POLICY": text}).policy


DEPLOYMENT = {
    "instanceType": "t",
    "instanceCount": 1,
    "roleArn": "r",
    "bakeSeconds": 0,
    "alarmNames": [],
    "variantName": "v",
    "captureSharePercent": 100,
}
MONITOR = {
    "imageUri": "i",
    "roleArn": "r",
    "instanceType": "t",
    "accuracyThreshold": 0.8,
    "minimumLabels": 30,
    "frequency": "daily",
}


@pytest.mark.parametrize(
    ("variable", "changes"),
    [
        ("deployment", {"instanceCount": 0}),
        ("deployment", {"bakeSeconds": 3601}),
        ("deployment", {"alarmNames": "one"}),
        ("monitor", {"frequency": "hourly"}),
    ],
)
def test_settings_out_of_range_are_named(variable: str, changes: dict[str, Any]) -> None:
    whole = {**{"deployment": DEPLOYMENT, "monitor": MONITOR}[variable], **changes}
    with pytest.raises(SettingsError, match=next(iter(changes))):
        getattr(Settings({variable.upper(): json.dumps(whole)}), variable)


def test_documented_settings_are_the_real_ones() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/conventions.md").read_text()
    for name in ("POLICY", "DEPLOYMENT", "MONITOR"):
        line = next(line for line in page.splitlines() if line.startswith(f"`{name}`: `"))
        example = line.removeprefix(f"`{name}`: `").rstrip("`")
        getattr(Settings({name: example}), name.lower())
