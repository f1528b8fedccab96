"""What template.yaml promises: safe roles, kept logs, described parameters, the outputs that others drive."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from truthloop.settings import DeploymentSettings, MonitorSettings, PolicySettings

ROOT = Path(__file__).resolve().parents[2]


@cache
def source() -> dict[str, Any]:
    """Return template.yaml as written."""
    return dict(yaml_parse((ROOT / "template.yaml").read_text()))


@cache
def expanded() -> dict[str, Any]:
    """Return the template after SAM's transform: the resources that AWS sees."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    # The transform wants S3 addresses where `sam package` would have put them.
    for resource in template["Resources"].values():
        for key in ("CodeUri", "ContentUri", "DefinitionUri"):
            if key in resource.get("Properties", {}):
                resource["Properties"][key] = "s3://bucket/key"
        if resource["Type"] == "AWS::Serverless::Application":
            resource["Properties"]["Location"] = "https://s3.amazonaws.com/bucket/key"
    parameters = {name: value.get("Default") for name, value in template["Parameters"].items()}
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name="us-east-1"))
    return dict(
        translator.translate(template, {**parameters, "AWS::Region": "us-east-1", "AWS::Partition": "aws"})
    )


def resources(kind: str, template: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the resources of one type by logical id."""
    every = (template or expanded())["Resources"]
    return {name: resource for name, resource in every.items() if resource["Type"] == kind}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements() -> list[tuple[str, dict[str, Any]]]:
    """Return every Allow statement of every role, with the role's logical id."""
    found = []
    for name, role in resources("AWS::IAM::Role").items():
        for policy in role["Properties"].get("Policies", []):
            found += [(name, s) for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
    assert len(found) > 40
    return found


def test_outputs_are_those_that_others_drive() -> None:
    wanted = {
        "DataBucketName", "GroundTruthPrefix", "PipelineName", "RetrainStateMachineArn",
        "DeployStateMachineArn", "ModelPackageGroupName", "EndpointName", "AccuracyAlarmName",
        "NotificationTopicArn", "LoopTableName",
    }  # fmt: skip
    assert wanted <= set(source()["Outputs"])


@pytest.mark.parametrize("name", source()["Parameters"])
def test_parameter_has_a_description_a_default_and_a_place(name: str) -> None:
    parameter = source()["Parameters"][name]
    assert parameter.get("Description", "").strip()
    assert "Default" in parameter
    groups = source()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert name in [listed_name for group in groups for listed_name in group["Parameters"]]
    used = (ROOT / "template.yaml").read_text()
    assert f"!Ref {name}" in used or f"${{{name}}}" in used, f"{name} is declared but changes nothing"


def test_no_role_may_do_everything_of_a_service() -> None:
    for role, statement in statements():
        for action in listed(statement["Action"]):
            assert "*" not in action, f"{role} is granted {action}"


def test_a_wildcard_resource_stands_only_where_aws_knows_no_other() -> None:
    # Service authorization reference: these actions support no resource-level permission.
    without_resource = {
        "ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "logs:CreateLogDelivery",
        "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery", "logs:ListLogDeliveries",
        "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups",
        "cloudwatch:GetMetricStatistics", "servicequotas:ListServiceQuotas",
        "servicequotas:ListAWSDefaultServiceQuotas", "sagemaker:ListTrainingJobs",
    }  # fmt: skip
    for role, statement in statements():
        if "*" in listed(statement["Resource"]):
            assert set(listed(statement["Action"])) <= without_resource, f"{role}: {statement}"


def test_every_function_and_state_machine_has_a_role_of_its_own() -> None:
    owners = resources("AWS::Lambda::Function") | resources("AWS::StepFunctions::StateMachine")
    roles = [json.dumps(o["Properties"].get("Role", o["Properties"].get("RoleArn"))) for o in owners.values()]
    assert len(set(roles)) == len(roles) == 14


def test_every_pass_role_names_the_service() -> None:
    passing = [s for _, s in statements() if "iam:PassRole" in listed(s["Action"])]
    assert passing
    for statement in passing:
        assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


@pytest.mark.parametrize("name", resources("AWS::Serverless::Function", source()))
def test_function_has_code_logs_with_an_end_and_ships_as_it_is(name: str) -> None:
    function = source()["Resources"][name]
    folder = ROOT / function["Properties"]["CodeUri"]
    assert [path.name for path in folder.iterdir() if path.name != "__pycache__"] == ["app.py"]
    assert "def lambda_handler" in (folder / "app.py").read_text()
    assert function["Metadata"] == {"SkipBuild": True}
    groups = resources("AWS::Logs::LogGroup").values()
    group_name = {"Fn::Sub": "/aws/lambda/" + function["Properties"]["FunctionName"]["Fn::Sub"]}
    assert any(
        g["Properties"]["LogGroupName"] == group_name and "RetentionInDays" in g["Properties"] for g in groups
    )


def test_every_function_folder_is_deployed() -> None:
    deployed = {f["Properties"]["CodeUri"] for f in resources("AWS::Serverless::Function", source()).values()}
    folders = {f"functions/{path.parent.name}" for path in (ROOT / "functions").glob("*/app.py")}
    assert deployed == folders


def test_functions_run_on_arm64_python_3_13() -> None:
    for function in resources("AWS::Lambda::Function").values():
        assert function["Properties"]["Runtime"] == "python3.13"
        assert function["Properties"]["Architectures"] == ["arm64"]


def test_machines_log_trace_and_are_standard() -> None:
    machines = resources("AWS::StepFunctions::StateMachine")
    assert set(machines) == {"RetrainStateMachine", "DeployStateMachine"}
    for machine in machines.values():
        properties = machine["Properties"]
        assert properties["StateMachineType"] == "STANDARD"
        assert properties["TracingConfiguration"] == {"Enabled": True}
        assert properties["LoggingConfiguration"]["Level"] == "ALL"


def test_bucket_is_private_versioned_encrypted_and_speaks_to_eventbridge() -> None:
    bucket = source()["Resources"]["DataBucket"]["Properties"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["NotificationConfiguration"]["EventBridgeConfiguration"]["EventBridgeEnabled"] is True
    policy = source()["Resources"]["DataBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert policy["Effect"] == "Deny"
    assert policy["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_every_rule_and_schedule_has_a_dead_letter_queue() -> None:
    targets = [t for rule in resources("AWS::Events::Rule").values() for t in rule["Properties"]["Targets"]]
    targets += [s["Properties"]["Target"] for s in resources("AWS::Scheduler::Schedule").values()]
    assert len(targets) >= 8
    for target in targets:
        assert "DeadLetterConfig" in target, target


def test_no_schedule_fires_in_the_moment_of_deployment() -> None:
    # EventBridge Scheduler fires a rate without a start date at once.
    schedules = resources("AWS::Scheduler::Schedule")
    assert len(schedules) == 3
    for schedule in schedules.values():
        assert "rate(" not in json.dumps(schedule["Properties"]["ScheduleExpression"])


def test_ingest_queue_outlives_six_times_its_function_and_a_batch_window() -> None:
    queue = source()["Resources"]["IngestQueue"]["Properties"]
    timeout = source()["Resources"]["IngestGroundTruthFunction"]["Properties"]["Timeout"]
    window = source()["Parameters"]["IngestBatchWindowSeconds"]["MaxValue"]
    assert queue["VisibilityTimeout"] >= 6 * timeout + window
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5


def test_template_uses_no_yaml_alias() -> None:
    # CloudFormation refuses aliases; `sam` would resolve them, `aws cloudformation` would not.
    tokens = yaml.scan((ROOT / "template.yaml").read_text())
    assert not [t for t in tokens if isinstance(t, yaml.AliasToken | yaml.AnchorToken)]


def test_what_cannot_be_made_again_outlives_the_stack() -> None:
    for name in ("DataBucket", "LoopTable", "ModelPackageGroup"):
        resource = source()["Resources"][name]
        assert resource["DeletionPolicy"] == "RetainExceptOnCreate", name
        assert resource["UpdateReplacePolicy"] == "Retain", name


@pytest.mark.parametrize(
    ("variable", "settings", "where"),
    [
        ("POLICY", PolicySettings, source()["Globals"]["Function"]),
        ("DEPLOYMENT", DeploymentSettings, source()["Globals"]["Function"]),
        ("MONITOR", MonitorSettings, source()["Resources"]["RunMonitorFunction"]["Properties"]),
    ],
)
def test_every_setting_can_be_set(variable: str, settings: Any, where: dict[str, Any]) -> None:
    # A message says "set the parameter InstancePriceUsd": then there must be one.
    given = where["Environment"]["Variables"][variable]["Fn::Sub"]
    text = given if isinstance(given, str) else given[0]
    wanted = {re.sub(r"_(\w)", lambda m: m[1].upper(), field.name) for field in fields(settings)}
    assert set(re.findall(r'"(\w+)":', text)) == wanted
