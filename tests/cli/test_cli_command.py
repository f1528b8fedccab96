"""The truthloop command as a process, against moto's server over HTTP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer

from tests.cli.conftest import deploy_preflight
from tests.handlers.conftest import POLICY

Command = Callable[..., subprocess.CompletedProcess[str]]
Clients = Callable[[str], Any]


def decision(at: str, outcome: str, reason: str, **more: Any) -> dict[str, Any]:
    return {
        "pk": "DECISION",
        "sk": f"{at}#some-execution",
        "at": at,
        "outcome": outcome,
        "reason": reason,
        "generation": "g00000001",
        "triggers": [],
        "rules": [],
        "evidence": {},
        **more,
    }


def put(aws: Clients, table: str, item: dict[str, Any]) -> None:
    encode = TypeSerializer().serialize
    aws("dynamodb").put_item(TableName=table, Item={name: encode(value) for name, value in item.items()})


# The tests of one file share the server and run in this order: first empty, then with history.


def test_says_so_when_nothing_has_been_decided(truthloop: Command, stack: str) -> None:
    done = truthloop("decisions")

    assert done.returncode == 0, done.stderr
    assert "no decisions yet" in done.stdout
    assert json.loads(truthloop("decisions", "--json").stdout) == []


def test_says_so_when_nothing_is_registered(truthloop: Command, stack: str) -> None:
    done = truthloop("models")

    assert done.returncode == 0, done.stderr
    assert "no models yet" in done.stdout


def test_doctor_finds_everything_but_the_endpoint_that_comes_later(truthloop: Command, stack: str) -> None:
    done = truthloop("doctor")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert "no base set yet" in done.stdout
    assert "not there yet" in done.stdout
    assert "1 × ml.p3.8xlarge, manual approval" in done.stdout


def test_shows_decisions_newest_first(truthloop: Command, aws: Clients, stack: str) -> None:
    put(aws, "truthloop-loop", decision("2026-11-22T10:00:00.000Z", "REFUSED", "MINIMUM_NEW_LABELS"))
    put(
        aws,
        "truthloop-loop",
        decision(
            "2026-11-22T11:00:00.000Z",
            "SUCCEEDED",
            "ALL_RULES_PASSED",
            message="200 new labels [and a bracket]",
            estimatedUsd=Decimal("352.51"),
            triggers=[{"kind": "alarm"}, {"kind": "violation"}, {"kind": "alarm"}],
        ),
    )

    lines = truthloop("decisions").stdout.splitlines()

    succeeded, refused = (
        next(i for i, line in enumerate(lines) if word in line) for word in ("SUCC", "REFU")
    )
    assert succeeded < refused
    assert "alarm × 2, violation" in lines[succeeded]
    assert "$352.51" in lines[succeeded]
    assert "ALL_RULES_PASSED: 200 new labels [and a bracket]" in lines[succeeded]


def test_limit_and_json(truthloop: Command, aws: Clients, stack: str) -> None:
    found = json.loads(truthloop("decisions", "--json", "--limit", "1").stdout)

    assert [item["outcome"] for item in found] == ["SUCCEEDED"]
    assert found[0]["estimatedUsd"] == 352.51
    assert "pk" not in found[0]


def test_refuses_a_limit_that_is_none(truthloop: Command, stack: str) -> None:
    done = truthloop("decisions", "--limit", "0")

    assert done.returncode == 2
    assert "not a positive number" in done.stderr


def test_shows_models_and_which_is_in_service(truthloop: Command, aws: Clients, stack: str) -> None:
    sagemaker = aws("sagemaker")
    arns = [
        sagemaker.create_model_package(
            ModelPackageGroupName="truthloop-models",
            ModelApprovalStatus=status,
            ModelPackageDescription="test",
            CustomerMetadataProperties={
                "generation": "g00000001",
                "candidate": candidate,
                "accuracy": accuracy,
                "recommended": recommended,
                "reason": "it is the better one",
                "reportUri": f"s3://data/runs/g00000001/evaluation/{candidate}/report.html",
            },
        )["ModelPackageArn"]
        # moto forgets the metadata of a package that is updated, so each is made with its status.
        for candidate, accuracy, recommended, status in (
            ("old", "0.912", "false", "PendingManualApproval"),
            ("new", "0.955", "true", "Approved"),
        )
    ]
    sagemaker.create_model(
        ModelName="truthloop-g00000001-new",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/endpoint",
        PrimaryContainer={"ModelPackageName": arns[1]},
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName="truthloop-g00000001",
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "truthloop-g00000001-new",
                "InitialInstanceCount": 1,
                "InstanceType": "ml.g4dn.xlarge",
                "InitialVariantWeight": 1.0,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName="truthloop-endpoint", EndpointConfigName="truthloop-g00000001")

    done = truthloop("models")
    found = json.loads(truthloop("models", "--json").stdout)

    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "g00000001" in line]
    rows = {line.split()[2]: line for line in lines if not line.startswith("report")}
    assert "Approved" in rows["new"]
    assert "95.5%" in rows["new"]
    assert rows["new"].count(" yes") == 2
    assert "PendingManualApproval" in rows["old"]
    assert " yes" not in rows["old"]
    assert [(item["candidate"], item["inService"]) for item in found] == [("new", True), ("old", False)]
    assert found[0]["report"] == "s3://data/runs/g00000001/evaluation/new/report.html"
    assert "report 1: s3://data/runs/g00000001/evaluation/old/report.html" in lines


def test_the_stack_can_be_named_by_option_and_environment(truthloop: Command, stack: str) -> None:
    assert truthloop("decisions", TRUTHLOOP_STACK="elsewhere").returncode == 1
    assert truthloop("decisions", "--stack", "truthloop", TRUTHLOOP_STACK="elsewhere").returncode == 0


def test_no_stack_is_one_clear_sentence(truthloop: Command, stack: str) -> None:
    done = truthloop("decisions", "--stack", "nobody-has-this")

    assert done.returncode == 1
    assert "there is no stack nobody-has-this" in done.stderr
    assert "make deploy" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_stack_is_no_truthloop_stack(truthloop: Command, aws: Clients, stack: str) -> None:
    aws("cloudformation").create_stack(
        StackName="shop", TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    )

    done = truthloop("models", "--stack", "shop")

    assert done.returncode == 1
    assert "no Truthloop stack" in done.stderr


def test_no_credentials(truthloop: Command, tmp_path: Path, stack: str) -> None:
    done = truthloop("decisions", AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, HOME=str(tmp_path))

    assert done.returncode == 1
    assert "configure AWS credentials" in done.stderr


def test_no_region(truthloop: Command, tmp_path: Path, stack: str) -> None:
    done = truthloop("decisions", AWS_DEFAULT_REGION=None, HOME=str(tmp_path))

    assert done.returncode == 1
    assert "no region is set" in done.stderr


def test_a_profile_that_does_not_exist(truthloop: Command, tmp_path: Path, stack: str) -> None:
    done = truthloop("decisions", AWS_PROFILE="nobody", HOME=str(tmp_path))

    assert done.returncode == 1
    assert "AWS_PROFILE" in done.stderr


def test_an_endpoint_that_does_not_answer(truthloop: Command, stack: str) -> None:
    done = truthloop("decisions", AWS_ENDPOINT_URL="http://127.0.0.1:9")

    assert done.returncode == 1
    assert "AWS_ENDPOINT_URL" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_an_unknown_command_shows_the_usage(truthloop: Command, arguments: list[str]) -> None:
    done = truthloop(*arguments)

    assert done.returncode == 2
    assert "usage: truthloop" in done.stderr


def test_a_call_that_fails_names_it(truthloop: Command, aws: Clients, stack: str) -> None:
    aws("dynamodb").delete_table(TableName="truthloop-loop")

    done = truthloop("decisions")

    assert done.returncode == 1
    assert "Query failed with ResourceNotFoundException" in done.stderr


def test_doctor_names_what_is_missing(truthloop: Command, aws: Clients, stack: str) -> None:
    aws("cloudwatch").delete_alarms(AlarmNames=["truthloop-accuracy"])
    deploy_preflight(aws, {**POLICY, "useSpotTraining": "true", "maxWaitSeconds": 3600})

    done = truthloop("doctor", "--json")

    assert done.returncode == 1
    bad = {item["name"]: item["detail"] for item in json.loads(done.stdout) if not item["ok"]}
    assert set(bad) == {"settings", "loop table", "accuracy alarm"}
    assert "raise the parameter MaxWaitSeconds" in bad["settings"]
    assert "does not exist" in bad["accuracy alarm"]
