"""``truthloop doctor``: whether everything is there that the stack's outputs name, and answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.errors import MissingError
from cli.output import counted, print_json
from cli.reingest import missed
from cli.stack import Stack
from truthloop.errors import SettingsError
from truthloop.times import from_iso, to_iso

HEALTHY = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    ok: bool
    detail: str


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    commands.add_parser("doctor", parents=[common], help="is everything there, and does it answer?")


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code: 1 when something is wrong."""
    findings = examine(stack)
    if given.json:
        print_json([vars(finding) for finding in findings])
    else:
        console.print(table(findings))
    return 0 if all(finding.ok for finding in findings) else 1


def examine(stack: Stack) -> list[Finding]:
    """Look at each resource behind the outputs; a failed look is a finding, not an error."""
    outputs = stack.outputs
    findings = [Finding("stack", stack.status in HEALTHY, f"{stack.name}: {stack.status}")]
    for name, look in CHECKS.items():
        try:
            findings.append(Finding(name, True, look(stack, outputs)))
        except (ClientError, BotoCoreError, MissingError, SettingsError) as error:
            findings.append(Finding(name, False, str(error)))
    return findings


def _bucket(stack: Stack, outputs: dict[str, str]) -> str:
    bucket = outputs["DataBucketName"]
    listed = stack.client("s3").list_objects_v2(Bucket=bucket, Prefix="base/", MaxKeys=1)
    base = "base set there" if listed.get("KeyCount") else "no base set yet: put it under base/"
    return f"{bucket}: {base}"


def _settings(stack: Stack, _: dict[str, str]) -> str:
    """Read the policy as the functions do: CloudFormation cannot compare one parameter with another."""
    policy = stack.deciding_ports().settings.policy
    spot = " (spot)" if policy.use_spot_training else ""
    instances = f"{policy.training_instance_count} × {policy.training_instance_type}{spot}"
    return f"{instances}, {policy.approval} approval"


def _inbox(stack: Stack, outputs: dict[str, str]) -> str:
    found = missed(stack.bucket, stack.bucket.now())
    if found:
        raise MissingError(
            f"{counted(len(found), 'upload')} never came to the door, the oldest {found[0].key} of "
            f"{to_iso(from_iso(found[0].uploaded_at))[:19]}Z: truthloop reingest"
        )
    return "every upload was read"


def _table(stack: Stack, outputs: dict[str, str]) -> str:
    found = stack.client("dynamodb").describe_table(TableName=outputs["LoopTableName"])
    return f"{outputs['LoopTableName']}: {found['Table']['TableStatus']}"


def _machine(output: str) -> Callable[[Stack, dict[str, str]], str]:
    def look(stack: Stack, outputs: dict[str, str]) -> str:
        client = stack.client("stepfunctions")
        arn = outputs[output]
        status = client.describe_state_machine(stateMachineArn=arn)["status"]
        running = client.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]
        return f"{arn.rsplit(':', 1)[-1]}: {status}, {len(running)} running"

    return look


def _pipeline(stack: Stack, outputs: dict[str, str]) -> str:
    found = stack.client("sagemaker").describe_pipeline(PipelineName=outputs["PipelineName"])
    return f"{outputs['PipelineName']}: {found['PipelineStatus']}"


def _packages(stack: Stack, outputs: dict[str, str]) -> str:
    name = outputs["ModelPackageGroupName"]
    stack.client("sagemaker").describe_model_package_group(ModelPackageGroupName=name)
    return name


def _endpoint(stack: Stack, outputs: dict[str, str]) -> str:
    name = outputs["EndpointName"]
    try:
        status = stack.client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException":
            return f"{name}: not there yet; it comes with the first approved package"
        raise
    return f"{name}: {status}"


def _alarm(stack: Stack, outputs: dict[str, str]) -> str:
    name = outputs["AccuracyAlarmName"]
    found = stack.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    if not found:
        raise MissingError(f"{name} does not exist: deploy the stack again (make deploy)")
    return f"{name}: {found[0]['StateValue']}"


CHECKS: dict[str, Callable[[Stack, dict[str, str]], str]] = {
    "settings": _settings,
    "data bucket": _bucket,
    "inbox": _inbox,
    "loop table": _table,
    "retrain machine": _machine("RetrainStateMachineArn"),
    "deploy machine": _machine("DeployStateMachineArn"),
    "pipeline": _pipeline,
    "model packages": _packages,
    "endpoint": _endpoint,
    "accuracy alarm": _alarm,
}


def table(findings: list[Finding]) -> Table:
    """Render the findings, one row each."""
    rendered = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
        rendered.add_row(mark, finding.name, escape(finding.detail))
    return rendered
