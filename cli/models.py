"""``truthloop models``: what the registry holds, and which of it is in service."""

from __future__ import annotations

import argparse
from typing import Any

from botocore.exceptions import ClientError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.output import print_json
from cli.stack import Stack

COLOURS = {"Approved": "green", "Rejected": "red", "PendingManualApproval": "yellow"}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    commands.add_parser("models", parents=[common], help="the registry's packages, and which is in service")


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    packages = read(stack)
    if given.json:
        print_json(packages)
    elif packages:
        console.print(table(packages))
        for package in packages:
            if package["report"]:
                # On one line, however long: to be copied.
                console.print(
                    f"report {package['version']}: {package['report']}", soft_wrap=True, markup=False
                )
    else:
        console.print("no models yet: no run has registered a package")
    return 0


def read(stack: Stack) -> list[dict[str, Any]]:
    """Return every package of the group, newest first, each with ``inService``."""
    client = stack.client("sagemaker")
    pages = client.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=stack.outputs["ModelPackageGroupName"]
    )
    served = served_packages(stack)
    found = []
    for page in pages:
        for summary in page["ModelPackageSummaryList"]:
            arn = summary["ModelPackageArn"]
            package = client.describe_model_package(ModelPackageName=arn)
            metadata = package.get("CustomerMetadataProperties") or {}
            found.append(
                {
                    "arn": arn,
                    "version": int(package["ModelPackageVersion"]),
                    "status": package["ModelApprovalStatus"],
                    "generation": metadata.get("generation"),
                    "candidate": metadata.get("candidate"),
                    "accuracy": float(metadata["accuracy"]) if metadata.get("accuracy") else None,
                    "recommended": metadata.get("recommended") == "true",
                    "reason": metadata.get("reason"),
                    "report": metadata.get("reportUri"),
                    "inService": arn in served,
                }
            )
    return sorted(found, key=lambda item: -int(item["version"]))


def served_packages(stack: Stack) -> set[str]:
    """Return the packages whose models the endpoint serves; none if there is no endpoint."""
    client = stack.client("sagemaker")
    try:
        endpoint = client.describe_endpoint(EndpointName=stack.outputs["EndpointName"])
    except ClientError as error:
        # SageMaker's word for "there is none".
        if error.response["Error"]["Code"] == "ValidationException":
            return set()
        raise
    config = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    served = set()
    for variant in config["ProductionVariants"]:
        model = client.describe_model(ModelName=variant["ModelName"])
        containers = [model.get("PrimaryContainer") or {}, *(model.get("Containers") or [])]
        served |= {c["ModelPackageName"] for c in containers if c.get("ModelPackageName")}
    return served


def table(packages: list[dict[str, Any]]) -> Table:
    """Render the packages, one row each."""
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rendered.add_column("version", justify="right")
    for name in ("generation", "candidate", "status"):
        rendered.add_column(name, no_wrap=True)
    rendered.add_column("accuracy", justify="right")
    rendered.add_column("recommended")
    rendered.add_column("in service")
    rendered.add_column("reason", overflow="fold", ratio=1)
    for package in packages:
        colour = COLOURS.get(package["status"], "default")
        accuracy = package["accuracy"]
        rendered.add_row(
            str(package["version"]),
            escape(package["generation"] or ""),
            escape(package["candidate"] or ""),
            f"[{colour}]{escape(package['status'])}[/{colour}]",
            "" if accuracy is None else f"{accuracy:.1%}",
            "yes" if package["recommended"] else "",
            "[bold green]yes[/bold green]" if package["inService"] else "",
            escape(package["reason"] or ""),
        )
    return rendered
