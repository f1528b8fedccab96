"""The functions' handlers against moto over HTTP, with faults injected at botocore's own hook."""

from __future__ import annotations

import importlib.util
import io
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
import requests
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from moto.server import ThreadedMotoServer

from local.context import LocalAws
from local.dynamodb import install as make_dynamodb_atomic
from local.quotas import install as know_training_quotas
from tests.contract.api_model import violations
from truthloop.aws.calls import CLIENT_CONFIG
from truthloop.wiring import Wiring, wiring

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
BUCKET = "truthloop-data-111122223333-us-east-1"
TABLE = "truthloop-loop"
ENDPOINT = "truthloop-endpoint"
GROUP = "truthloop-models"
PIPELINE = "truthloop-pipeline"
ROLE = "arn:aws:iam::123456789012:role/truthloop"

POLICY: dict[str, Any] = {
    "minimumNewLabels": 3,
    "cooldownMinutes": 0,
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
DEPLOYMENT: dict[str, Any] = {
    "instanceType": "ml.g4dn.xlarge",
    "instanceCount": 1,
    "roleArn": ROLE,
    "bakeSeconds": 600,
    "alarmNames": ["truthloop-5xx"],
    "variantName": "AllTraffic",
    "captureSharePercent": 100,
}
MONITOR: dict[str, Any] = {
    "imageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/truthloop-training:1",
    "roleArn": ROLE,
    "instanceType": "ml.m5.xlarge",
    "accuracyThreshold": 0.85,
    "minimumLabels": 30,
    "frequency": "daily",
}


def _canned(status: int, parsed: dict[str, Any]) -> tuple[AWSResponse, dict[str, Any]]:
    response = AWSResponse("http://localhost", status, HTTPHeaders(), io.BytesIO())
    return response, {"ResponseMetadata": {"HTTPStatusCode": status}, **parsed}


def request_of(params: Any) -> Any:
    """Return the request's JSON body; {} when it has another one."""
    try:
        return json.loads(params.get("body") or "{}")
    except ValueError:
        return {}


class World:
    """A deployed stack's resources, empty, and the functions that work on them."""

    def __init__(self, url: str, clients: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._clients = clients
        self._hooks: list[tuple[Any, str, Any]] = []
        self.url = url
        self.s3 = clients("s3")
        self.dynamodb = clients("dynamodb")
        self.sagemaker = clients("sagemaker")
        self.states = clients("stepfunctions")
        self._create()

    def _create(self) -> None:
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        self.dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        self.sagemaker.create_pipeline(
            PipelineName=PIPELINE, PipelineDefinition="{}", ClientRequestToken="x" * 32, RoleArn=ROLE
        )
        self.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
        machine = self.states.create_state_machine(
            name="truthloop-retrain",
            definition='{"StartAt":"Wait","States":{"Wait":{"Type":"Wait","Seconds":1,"End":true}}}',
            roleArn=ROLE,
        )
        self.machine: str = machine["stateMachineArn"]

    def client(self, service: str) -> Any:
        """Return a user's client."""
        return self._clients(service)

    # -- functions -----------------------------------------------------------------------------------------

    def run(self, function: str, event: Any, *, seconds: int = 300) -> Any:
        """Call a handler as Lambda would: JSON in, JSON out, and `seconds` before it is cut off."""
        context = SimpleNamespace(
            aws_request_id="request-1",
            function_name=function,
            get_remaining_time_in_millis=lambda: seconds * 1000,
        )
        answer = load(function).lambda_handler(json.loads(json.dumps(event)), context)
        return json.loads(json.dumps(answer))

    def configure(self, variable: str, **changes: Any) -> None:
        """Deploy with other parameters: a new process sees a new environment."""
        base = {"POLICY": POLICY, "DEPLOYMENT": DEPLOYMENT, "MONITOR": MONITOR}[variable]
        self._monkeypatch.setenv(variable, json.dumps({**base, **changes}))
        self.new_process()

    def new_process(self) -> None:
        """Forget what a process keeps."""
        wiring.cache_clear()

    def at(self, moment: datetime) -> None:
        """Set the functions' clock."""
        self._monkeypatch.setattr(Wiring, "now", lambda _: moment)

    def later(self, **delta: float) -> None:
        """Set the functions' clock ahead of the present."""
        self.at(datetime.now(UTC) + timedelta(**delta))

    # -- faults --------------------------------------------------------------------------------------------

    def hook(self, event: str, handler: Any) -> None:
        """Hook into the functions' own clients until the test ends; ``event`` as botocore names it."""
        service = {"sfn": "stepfunctions"}.get(name := event.split(".")[1], name)
        emitter = self._clients(f"function:{service}").meta.events
        emitter.register_first(event, handler)
        self._hooks.append((emitter, event, handler))

    def unhook(self) -> None:
        """Take every hook off."""
        for emitter, event, handler in self._hooks:
            emitter.unregister(event, handler)

    def answer(self, operation: str, *answers: dict[str, Any] | Exception, status: int = 200) -> list[Any]:
        """Answer `operation` (such as ``sagemaker.UpdateEndpoint``) in AWS's place; returns the requests.

        The last answer repeats. An exception is raised where the network would have raised it.
        """
        seen: list[Any] = []

        def hook(params: Any, **_: Any) -> Any:
            seen.append(request_of(params))
            given = answers[min(len(seen), len(answers)) - 1]
            if isinstance(given, Exception):
                raise given
            return _canned(status, given)

        self.hook(f"before-call.{operation}", hook)
        return seen

    def watch(self, operation: str) -> list[Any]:
        """Let `operation` through and return the requests seen."""
        seen: list[Any] = []
        self.hook(f"before-call.{operation}", lambda params, **_: seen.append(request_of(params)))
        return seen

    def fail(
        self, operation: str, code: str, *, status: int = 400, times: int = 1, **more: Any
    ) -> Callable[[], int]:
        """Fail the next `times` calls of `operation` with an error code; returns how often it did."""
        left = [times]

        def hook(**_: Any) -> Any:
            if left[0] <= 0:
                return None
            left[0] -= 1
            return _canned(status, {"Error": {"Code": code, "Message": "injected"}, **more})

        self.hook(f"before-call.{operation}", hook)
        return lambda: times - left[0]

    def lose_answer(self, operation: str) -> None:
        """Let the next call of `operation` through and lose its answer: a time-out after acceptance."""
        from botocore.exceptions import ReadTimeoutError

        left = [1]

        def hook(**_: Any) -> None:
            if left[0]:
                left[0] = 0
                raise ReadTimeoutError(endpoint_url=self.url)

        self.hook(f"after-call.{operation}", hook)

    # -- the world's state ---------------------------------------------------------------------------------

    def execution(self, name: str) -> str:
        """Start an execution that runs until `end`."""
        arn: str = self.states.start_execution(stateMachineArn=self.machine, name=name)["executionArn"]
        return arn

    def end(self, arn: str) -> None:
        """End an execution."""
        self.states.stop_execution(executionArn=arn)

    def claim(self, name: str, trigger: Any = None) -> Any:
        """Start an execution and let it claim."""
        arn = self.execution(name)
        return self.run(
            "claim_run",
            {
                "execution": arn,
                "trigger": {} if trigger is None else trigger,
                "startedAt": "2026-11-22T10:00:00.123Z",
            },
        )

    def record(self) -> dict[str, Any]:
        """Read the generation record."""
        from truthloop.aws.attributes import from_item

        key = {"pk": {"S": "GENERATION"}, "sk": {"S": "CURRENT"}}
        return from_item(self.dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True)["Item"])

    def decisions(self) -> list[dict[str, Any]]:
        """Read the decision log, oldest first."""
        from truthloop.aws.attributes import from_item

        items = self.dynamodb.query(
            TableName=TABLE,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "DECISION"}},
        )["Items"]
        return [from_item(item) for item in items]

    def put(self, key: str, content: bytes | str | list[Any] | dict[str, Any]) -> str:
        """Write an object; returns its version."""
        if isinstance(content, list | dict):
            content = json.dumps(content)
        body = content.encode() if isinstance(content, str) else content
        version: str = self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)["VersionId"]
        return version

    def get(self, key: str) -> bytes:
        """Read an object."""
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str) -> list[str]:
        """List keys."""
        answer = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in answer.get("Contents", [])]

    def register(
        self, generation: str, candidate: str, approval: str = "PendingManualApproval", **metadata: str
    ) -> str:
        """Register a package as the pipeline does."""
        url = f"s3://{BUCKET}/runs/{generation}/models/{candidate}/output/model.tar.gz"
        arn: str = self.sagemaker.create_model_package(
            ModelPackageGroupName=GROUP,
            ModelApprovalStatus=approval,
            InferenceSpecification={
                "Containers": [{"Image": "image", "ModelDataUrl": url}],
                "SupportedContentTypes": ["image/png"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            CustomerMetadataProperties={"generation": generation, "candidate": candidate, **metadata},
        )["ModelPackageArn"]
        return arn

    def captures(self, *identifiers: str, key: str | None = None, endpoint: str = ENDPOINT) -> str:
        """Write the captured predictions of some ids, as the endpoint does; returns the object's key."""
        name = key or f"{uuid.uuid4()}"
        full = f"capture/{endpoint}/AllTraffic/2026/11/22/10/{name}.jsonl"
        self.put(full, "".join(json.dumps(captured(identifier)) + "\n" for identifier in identifiers))
        return full

    def corrections(
        self,
        labels: dict[str, str],
        key: str = "corrections",
        sequencer: str = "01",
        *,
        capture: bool = True,
        **metadata: Any,
    ) -> Any:
        """Upload corrections and ingest them; unless told otherwise their predictions are captured."""
        if capture:
            self.captures(*labels)
        records = (record(identifier, label, **metadata) for identifier, label in labels.items())
        lines = "".join(json.dumps(each) + "\n" for each in records)
        full = f"ground-truth/inbox/{key}.jsonl"
        version = self.put(full, lines)
        return self.run("ingest_ground_truth", batch(uploaded(full, version, sequencer)))

    def set_pipeline_status(self, arn: str, status: str, reason: str | None = None) -> None:
        """Let a pipeline execution end; moto ends every one at once, in success."""
        from moto.sagemaker.models import sagemaker_backends

        execution = sagemaker_backends["123456789012"][REGION].pipelines[PIPELINE].pipeline_executions[arn]
        execution.pipeline_execution_status = status
        execution.pipeline_execution_failure_reason = reason


def record(identifier: str, label: Any, **metadata: Any) -> dict[str, Any]:
    """Return one ground-truth record."""
    return {
        "groundTruthData": {"data": label, "encoding": "CSV"},
        "eventMetadata": {"eventId": identifier, **metadata},
        "eventVersion": "0",
    }


def captured(identifier: str) -> dict[str, Any]:
    """Return one record of data capture, in the shape that SageMaker writes."""
    image = {"observedContentType": "image/png", "mode": "INPUT", "data": "iVBORw==", "encoding": "BASE64"}
    answer = {"observedContentType": "application/json", "mode": "OUTPUT", "data": "{}", "encoding": "JSON"}
    return {
        "captureData": {"endpointInput": image, "endpointOutput": answer},
        "eventMetadata": {
            "eventId": f"event-of-{identifier}",
            "inferenceId": identifier,
            "inferenceTime": "2026-11-22T10:00:00Z",
        },
        "eventVersion": "0",
    }


def uploaded(key: str, version: str, sequencer: str = "01", bucket: str = BUCKET) -> dict[str, Any]:
    """Return S3's event for an upload."""
    event: dict[str, Any] = json.loads((ROOT / "events/s3_ground_truth_uploaded.json").read_text())
    event["detail"]["bucket"]["name"] = bucket
    event["detail"]["object"].update({"key": key, "version-id": version, "sequencer": sequencer})
    return event


def batch(*bodies: Any) -> dict[str, Any]:
    """Return Lambda's SQS event; message ids are m0, m1, …."""
    return {
        "Records": [
            {"messageId": f"m{i}", "body": body if isinstance(body, str) else json.dumps(body)}
            for i, body in enumerate(bodies)
        ]
    }


_LOADED: dict[str, ModuleType] = {}


def load(function: str) -> ModuleType:
    """Import a function's app.py under a name of its own: all of them are called app."""
    if function not in _LOADED:
        spec = importlib.util.spec_from_file_location(
            f"app_{function}", ROOT / "functions" / function / "app.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _LOADED[function] = module
    return _LOADED[function]


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Serve moto on a free loopback port."""
    make_dynamodb_atomic(LocalAws(0, REGION))
    know_training_quotas(LocalAws(0, REGION))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def clients(moto_url: str) -> Callable[[str], Any]:
    """Make each client once: reading SageMaker's model takes longer than a test.

    ``function:<service>`` is the client that the functions get, with their own configuration.
    """
    session = boto3.session.Session("test", "test", region_name=REGION)

    @cache
    def make(name: str) -> Any:
        config = CLIENT_CONFIG if name.startswith("function:") else None
        service: Any = name.rsplit(":", 1)[-1]
        client = session.client(service, endpoint_url=moto_url, config=config)
        if name.startswith("function:"):
            client.meta.events.register("before-parameter-build", refuse_what_aws_refuses)
        return client

    return make


def refuse_what_aws_refuses(params: Any, model: Any, **_: Any) -> None:
    """Fail the test for a request that the service would refuse; moto takes it."""
    assert list(violations(model.input_shape, params, model.name)) == []


@pytest.fixture
def world(moto_url: str, clients: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Give each test an empty account and a fresh process's environment."""
    requests.post(f"{moto_url}/moto-api/reset", timeout=30).raise_for_status()
    environment = {
        "LOOP_TABLE_NAME": TABLE,
        "DATA_BUCKET_NAME": BUCKET,
        "PIPELINE_NAME": PIPELINE,
        "MODEL_PACKAGE_GROUP_NAME": GROUP,
        "ENDPOINT_NAME": ENDPOINT,
        "POLICY": json.dumps(POLICY),
        "DEPLOYMENT": json.dumps(DEPLOYMENT),
        "MONITOR": json.dumps(MONITOR),
        "POWERTOOLS_SERVICE_NAME": "test",
        "POWERTOOLS_METRICS_NAMESPACE": "Truthloop",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Patience is the state machine's; here a retry that sleeps only costs time.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    monkeypatch.setattr(Wiring, "_client", lambda _, service: clients(f"function:{service}"))
    wiring.cache_clear()
    _LOADED.pop("ingest_ground_truth", None)  # it remembers the label set
    created = World(moto_url, clients, monkeypatch)
    yield created
    created.unhook()
    wiring.cache_clear()
