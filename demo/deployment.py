"""Deploy the stack with the demo's parameters: the same template that ``sam deploy`` sends to AWS."""

from __future__ import annotations

import json
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from demo.cloud import Cloud, Outputs
from demo.display import Display
from demo.errors import DeploymentError
from demo.process import ROOT
from local.deploy import DeployError
from local.deploy import deploy as deploy_template

STACK = "truthloop"
PARAMETERS = Path(__file__).with_name("parameters.json")
LAYER_CACHE = ROOT / "build" / "layers"


def deploy(cloud: Cloud, template: Path, display: Display) -> Outputs:
    """Build, package and deploy; return the stack's outputs.

    Raises
    ------
    DeploymentError
        Naming the resource that failed and why.
    """
    parameters: dict[str, str] = json.loads(PARAMETERS.read_text())
    display.doing(f"deploying the stack {STACK} from {template.name}")
    try:
        deploy_template(cloud, template, STACK, parameters, cache=LAYER_CACHE)
    except (DeployError, ClientError, BotoCoreError) as error:
        first, *more = str(error).splitlines() or [type(error).__name__]
        raise DeploymentError(f"the deployment of {template.name} failed: {first}", more) from error
    outputs = cloud.outputs(STACK)
    resources = cloud.client("cloudformation").get_paginator("list_stack_resources")
    count = sum(len(page["StackResourceSummaries"]) for page in resources.paginate(StackName=STACK))
    display.done(f"stack {STACK}: {count} resources, the same template that sam deploy takes")
    return outputs
