"""Each role is granted what its code calls, on the resources that AWS checks, and nothing else.

What a function calls is read from the code: from its handler through the steps to the ports that they use,
and from there to the boto3 operations of the adapters. What it may call is read from template.yaml.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore import xform_name

from tests.contract.test_template import listed, resources, source
from truthloop.settings import CHECKPOINTS_PREFIX

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "layers/common/truthloop"
IAM_PREFIX = {"stepfunctions": "states", "sagemaker-runtime": "sagemaker"} | {
    "service-quotas": "servicequotas"
}

# Actions that an operation is authorised by, where they are not its own name.
RENAMED = {"s3:ListObjectsV2": "s3:ListBucket"}
ALSO_CHECKED = {
    "s3:GetObject": {"s3:ListBucket"},  # without it S3 says of a missing object that it is forbidden
    "sagemaker:CreateModel": {"iam:PassRole"},
    "sagemaker:CreateProcessingJob": {"iam:PassRole"},
    "sagemaker:UpdateEndpoint": {"cloudwatch:DescribeAlarms"},  # of the alarms that roll it back
}
# Granted to Step Functions itself, which has no resource to name.
LOG_DELIVERY = {
    "logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery", "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}  # fmt: skip

# Service authorization reference: what the ARN of each action's resource looks like.
NAMED = r"\$\{AWS::StackName\}"
RESOURCES = {
    "sagemaker:ListPipelineExecutions": rf":pipeline/{NAMED}-pipeline$",
    "sagemaker:StartPipelineExecution": rf":pipeline/{NAMED}-pipeline$",
    "sagemaker:DescribePipelineExecution": rf":pipeline/{NAMED}-pipeline/execution/\*$",
    "sagemaker:ListPipelineExecutionSteps": rf":pipeline/{NAMED}-pipeline/execution/\*$",
    "sagemaker:ListModelPackages": rf":model-package-group/{NAMED}-models$",
    "sagemaker:DescribeModelPackage": rf":model-package/{NAMED}-models/\*$",
    "sagemaker:UpdateModelPackage": rf":model-package/{NAMED}-models/\*$",
    "sagemaker:DescribeEndpoint": rf":endpoint/{NAMED}-endpoint$",
    "sagemaker:InvokeEndpoint": rf":endpoint/{NAMED}-endpoint$",
    "sagemaker:CreateEndpoint": rf":endpoint-config/{NAMED}-\*$",  # and the endpoint itself
    "sagemaker:UpdateEndpoint": rf":endpoint-config/{NAMED}-\*$",
    "sagemaker:CreateProcessingJob": rf":processing-job/{NAMED}-\*$",
    "sagemaker:DescribeTrainingJob": r":training-job/(pipelines-)?\*$",
    "sagemaker:ListTrainingJobs": r"^\*$",
    "cloudwatch:GetMetricStatistics": r"^\*$",
    "servicequotas:ListServiceQuotas": r"^\*$",
    "servicequotas:ListAWSDefaultServiceQuotas": r"^\*$",
    "dynamodb:GetItem": r"LoopTable\.Arn$",
    "dynamodb:PutItem": r"LoopTable\.Arn$",
    "dynamodb:UpdateItem": r"LoopTable\.Arn$",
    "dynamodb:Query": r"LoopTable\.Arn$",
    "s3:ListBucket": r"^DataBucket\.Arn$",
    "s3:GetObject": r"^\$\{DataBucket\.Arn\}/.+\*$",
    "s3:PutObject": r"^\$\{DataBucket\.Arn\}/.+\*$",
    "states:DescribeExecution": rf":execution:{NAMED}-retrain:\*$",
    "states:StartExecution": rf":stateMachine:{NAMED}-retrain$",
    "events:PutEvents": r":event-bus/default$",
}


# -- what the code calls -----------------------------------------------------------------------------------


@cache
def operations(service: str) -> dict[str, str]:
    """Return the boto3 names of a service's operations and the actions that they are."""
    names = botocore.session.get_session().get_service_model(service).operation_names
    prefix = IAM_PREFIX.get(service, service)
    actions = {xform_name(name): f"{prefix}:{name}" for name in names}
    return {method: RENAMED.get(action, action) for method, action in actions.items()}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def words(node: ast.AST) -> set[str]:
    """Return every attribute and text below a node: an operation is called by one or handed on as one."""
    found = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return found | {
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


@cache
def ports() -> dict[str, dict[str, frozenset[str]]]:
    """Return, per port and method, the actions of its adapter: as truthloop/wiring.py wires them."""
    found = {}
    (wiring,) = (n for n in parsed(PACKAGE / "wiring.py").body if isinstance(n, ast.ClassDef))
    for port in (n for n in wiring.body if isinstance(n, ast.FunctionDef)):
        adapters = [n for n in ast.walk(port) if isinstance(n, ast.ImportFrom) and n.module]
        adapters = [n for n in adapters if str(n.module).startswith("truthloop.aws.")]
        if not adapters or port.name.startswith("_"):
            continue
        services = words(port) & {
            "dynamodb", "s3", "stepfunctions", "sagemaker-runtime", "events", "cloudwatch", "service-quotas",
        }  # fmt: skip
        if "_sagemaker" in words(port):
            services.add("sagemaker")
        module = parsed(PACKAGE.parent / (str(adapters[0].module).replace(".", "/") + ".py"))
        name = adapters[0].names[0].name
        (adapter,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name)
        found[port.name] = methods(adapter, {k: v for s in services for k, v in operations(s).items()})
    assert set(found) == {
        "table", "objects", "executions", "pipeline", "registry", "endpoint", "jobs", "events", "alarms",
        "quotas",
    }  # fmt: skip
    return found


def methods(adapter: ast.ClassDef, known: dict[str, str]) -> dict[str, frozenset[str]]:
    """Return the actions of each method, with those of the methods that it calls."""
    bodies = {n.name: n for n in adapter.body if isinstance(n, ast.FunctionDef)}
    own: dict[str, set[str]] = {}
    for name, body in bodies.items():
        own[name] = {known[word] for word in words(body) & set(known)}
        if "dynamodb:TransactWriteItems" in own[name]:  # authorised by its parts
            own[name].remove("dynamodb:TransactWriteItems")
            own[name] |= {f"dynamodb:{part}Item" for part in words(body) & {"Put", "Update", "Delete"}}

    def whole(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        called = (words(bodies[name]) & set(bodies)) - seen - {name}
        return own[name].union(*(whole(other, seen | {name}) for other in called))

    return {name: frozenset(whole(name)) for name in bodies}


def definitions(path: Path) -> dict[str, tuple[Path, ast.AST]]:
    """Return what a module of the steps defines, and what it takes from others of them, by name."""
    found: dict[str, tuple[Path, ast.AST]] = {}
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = (path, node)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("truthloop.steps"):
            other = PACKAGE.parent / (str(node.module).replace(".", "/") + ".py")
            found |= {a.name: known[a.name] for a in node.names if a.name in (known := definitions(other))}
    return found


def reached(path: Path) -> Iterator[ast.AST]:
    """Yield every function and class of the steps that a handler reaches."""
    ahead, seen = [(path, parsed(path) if path.name == "app.py" else None)], set()
    while ahead:
        where, node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if where.name != "app.py":
            yield node
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        ahead += [found for name, found in definitions(where).items() if name in names]


def called(function: str) -> set[str]:
    """Return the actions that a function needs."""
    found: set[str] = set()
    for node in reached(ROOT / "functions" / function / "app.py"):
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            if not isinstance(call.func, ast.Attribute):
                continue
            on = call.func.value
            port = on.attr if isinstance(on, ast.Attribute) else on.id if isinstance(on, ast.Name) else ""
            found |= ports().get(port, {}).get(call.func.attr, frozenset())
            version = call.args[2] if (port, call.func.attr) == ("objects", "stream") else None
            if version is not None and not isinstance(version, ast.Constant):
                found.add("s3:GetObjectVersion")
    return found.union(*(ALSO_CHECKED.get(action, set()) for action in found))


# -- what the template grants ------------------------------------------------------------------------------


def statements(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [s for policy in resource["Properties"]["Policies"] for s in policy["Statement"]]


def granted(resource: dict[str, Any]) -> set[str]:
    return {action for s in statements(resource) for action in listed(s["Action"])}


def arn(resource: Any) -> str:
    """Return an ARN of the template as text, with what it refers to in it."""
    if isinstance(resource, dict):
        ((_, value),) = resource.items()
        return ".".join(value) if isinstance(value, list) else str(value)
    return str(resource)


FUNCTIONS = resources("AWS::Serverless::Function", source())
MACHINES = resources("AWS::Serverless::StateMachine", source())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_granted_what_it_calls_and_nothing_else(name: str) -> None:
    function = FUNCTIONS[name]
    assert granted(function) == called(Path(function["Properties"]["CodeUri"]).name)


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_granted_what_its_states_call_and_nothing_else(name: str) -> None:
    machine = MACHINES[name]
    states = yaml.safe_load((ROOT / machine["Properties"]["DefinitionUri"]).read_text())["States"]
    tasks = {s["Resource"].removeprefix("arn:aws:states:::") for s in states.values() if s["Type"] == "Task"}
    wanted = set()
    for task in tasks:
        service, operation = task.removeprefix("aws-sdk:").split(":")
        name_ = operation[0].upper() + operation[1:]
        wanted.add("lambda:InvokeFunction" if service == "lambda" else f"{service}:{name_}")
    assert granted(machine) - LOG_DELIVERY == wanted


@pytest.mark.parametrize("name", [*FUNCTIONS, *MACHINES])
def test_a_grant_names_the_resource_that_aws_checks(name: str) -> None:
    given: dict[str, set[str]] = {}
    for statement in statements((FUNCTIONS | MACHINES)[name]):
        for action in listed(statement["Action"]):
            given.setdefault(action, set()).update(arn(r) for r in listed(statement["Resource"]))
    for action, pattern in RESOURCES.items():
        if action in given:
            assert any(re.search(pattern, each) for each in given[action]), (action, given[action])


@pytest.mark.parametrize("name", [*FUNCTIONS, *MACHINES])
def test_nothing_is_granted_twice(name: str) -> None:
    texts = [
        json.dumps([action, resource], sort_keys=True)
        for statement in statements((FUNCTIONS | MACHINES)[name])
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    ]
    assert sorted(set(texts)) == sorted(texts)


def test_the_pipelines_role_may_do_what_its_steps_do() -> None:
    needs = {
        "Processing": {"sagemaker:CreateProcessingJob", "sagemaker:DescribeProcessingJob",
                       "sagemaker:StopProcessingJob", "sagemaker:AddTags", "iam:PassRole"},
        "Training": {"sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob",
                     "sagemaker:StopTrainingJob", "sagemaker:AddTags", "iam:PassRole"},
        # SageMaker looks at the image and the artefact of what is registered.
        "RegisterModel": {"sagemaker:CreateModelPackage", "sagemaker:AddTags", "ecr:BatchGetImage",
                          "ecr:DescribeImages", "s3:GetObject"},
        "Condition": {"s3:GetObject"},  # JsonGet
        "Fail": set(),
    }  # fmt: skip
    steps = json.loads((ROOT / "containers/pipeline/definition.json").read_text())["Steps"]
    kinds: set[str] = set()
    while steps:
        step = steps.pop()
        kinds.add(step["Type"])
        arguments = step["Arguments"] if step["Type"] == "Condition" else {}
        steps += [*arguments.get("IfSteps", []), *arguments.get("ElseSteps", [])]
    (policy,) = source()["Resources"]["PipelineRole"]["Properties"]["Policies"]
    given = {a for s in policy["PolicyDocument"]["Statement"] for a in listed(s["Action"])}
    assert given == set().union(*(needs[kind] for kind in kinds))


def test_the_jobs_may_bring_checkpoints_out_and_back_in_and_the_bucket_forgets_them() -> None:
    every = source()["Resources"]
    (policy,) = every["JobRole"]["Properties"]["Policies"]
    given = {
        action: {resource["Fn::Sub"] for resource in listed(statement["Resource"])}
        for statement in policy["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
        if action in ("s3:GetObject", "s3:PutObject")
    }
    where = f"${{DataBucket.Arn}}/{CHECKPOINTS_PREFIX}*"
    assert all(where in resources_ for resources_ in given.values())
    rules = every["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (rule,) = (rule for rule in rules if "ExpirationInDays" in rule)
    longest = source()["Parameters"]["MaxWaitSeconds"]["MaxValue"]
    assert (rule["Prefix"], rule["Status"]) == (CHECKPOINTS_PREFIX, "Enabled")
    assert rule["ExpirationInDays"] * 86_400 > 2 * longest


def test_a_port_is_called_by_its_name() -> None:
    # The reading above knows `ports.objects` and `objects`: a parameter of another name would hide its calls.
    by_type = {"Objects": "objects", "LoopTable": "table", "Registry": "registry", "Endpoint": "endpoint"}
    for path in (PACKAGE / "steps").glob("*.py"):
        for node in (n for n in ast.walk(parsed(path)) if isinstance(n, ast.arg)):
            kind = node.annotation.id if isinstance(node.annotation, ast.Name) else ""
            assert by_type.get(kind, node.arg) == node.arg, f"{path.name}: {node.arg}"
