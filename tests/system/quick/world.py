"""A deployed stack with quick jobs: what its users and AWS do to it, and what can be seen of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from boto3.dynamodb.types import TypeDeserializer

from tests.system.conftest import Stack
from tests.system.quick.images import Control, Fate
from tests.system.quick.ledger import Ledger, Said

ROOT = Path(__file__).resolve().parents[3]
QUIET_SECONDS = 240
LIVE = ("Executing", "Stopping")
Json = dict[str, Any]


class World:
    """One stack for many examples; `begin` makes it look new, except that generations go on."""

    def __init__(self, stack: Stack, control: Control) -> None:
        self.stack, self.control = stack, control
        self.bucket = stack.outputs["DataBucketName"]
        self.s3, self.sqs = stack.client("s3"), stack.client("sqs")
        self.sagemaker, self.states = stack.client("sagemaker"), stack.client("stepfunctions")
        self.dynamodb, self.cloudwatch = stack.client("dynamodb"), stack.client("cloudwatch")
        self.queue = self.sqs.get_queue_url(QueueName=self._physical("IngestQueue"))["QueueUrl"]
        self.tap = self._tap()
        self.examples = 0
        self.events: list[Json] = []
        self.s3.put_object(Bucket=self.bucket, Key="base/7/example.png", Body=b"a picture")

    def _physical(self, logical_id: str) -> str:
        found = self.stack.client("cloudformation").describe_stack_resource(
            StackName="truthloop", LogicalResourceId=logical_id
        )["StackResourceDetail"]["PhysicalResourceId"]
        return str(found).rsplit("/", 1)[-1]

    def _tap(self) -> str:
        """Let every event that the stack reacts to come to a queue of the test's own as well."""
        queue = self.sqs.create_queue(QueueName="tap")["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
        events = self.stack.client("events")
        pattern = {
            "detail-type": ["Object Created", "Ground Truth Accepted", "CloudWatch Alarm State Change"],
            "source": ["aws.s3", "truthloop.ingest", "aws.cloudwatch"],
        }
        events.put_rule(Name="tap", EventPattern=json.dumps(pattern))
        events.put_targets(Rule="tap", Targets=[{"Id": "tap", "Arn": arn["QueueArn"]}])
        return str(queue)

    # -- an example's beginning ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget everything, as a new stack would look; only the generations go on counting."""
        self.control.say(Fate.SUCCEEDS)
        self.control.let_go()
        self.examples += 1
        self.ledger = Ledger()
        self.forced: set[str] = set()
        self.uploads: list[tuple[str, bytes, list[tuple[str, str, str | None, bool, int]], int]] = []
        self.versions: dict[tuple[str, str], tuple[int, int]] = {}
        self.began = datetime.now(UTC)
        self.alarm("OK")
        endpoint = self.stack.outputs["EndpointName"]
        if self.sagemaker.list_endpoints(NameContains=endpoint)["Endpoints"]:
            self.sagemaker.delete_endpoint(EndpointName=endpoint)
            self.stack.wait_for(
                "the endpoint's end",
                lambda: (
                    True if not self.sagemaker.list_endpoints(NameContains=endpoint)["Endpoints"] else None
                ),
            )
        for package in self.stack.packages():
            self.sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
        self._delete_objects()
        self._delete_items()
        self._drain()
        self.events.clear()

    def _delete_objects(self) -> None:
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket)
        for page in pages:
            for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                if not item["Key"].startswith("base/"):
                    self.s3.delete_object(Bucket=self.bucket, Key=item["Key"], VersionId=item["VersionId"])

    def _delete_items(self) -> None:
        table = self.stack.outputs["LoopTableName"]
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=table)
        for item in [item for page in pages for item in page["Items"]]:
            key = {"pk": item["pk"], "sk": item["sk"]}
            if item["pk"]["S"] != "GENERATION":
                self.dynamodb.delete_item(TableName=table, Key=key)
                continue
            kept = {name: item[name] for name in ("pk", "sk", "generation")}
            self.dynamodb.put_item(TableName=table, Item={**kept, "status": {"S": "IDLE"}})

    # -- what users do -------------------------------------------------------------------------------------

    def identifier(self, number: int) -> str:
        """Return the inference id that an example calls `number`."""
        return f"example-{self.examples}-{number}"

    def upload(self, said: list[tuple[int, str, str | None, bool, int]], bad_lines: int) -> None:
        """Upload statements (id, label, author, whether it decides, minute) and lines that are none."""
        rows = [(self.identifier(n), label, author, last, minute) for n, label, author, last, minute in said]
        lines = [json.dumps(_record(*row)) for row in rows] + ["{not json"] * bad_lines
        self._put(f"{len(self.uploads)}.jsonl", "\n".join(lines).encode() + b"\n", rows, bad_lines)

    def upload_again(self, which: int, *, same_key: bool) -> None:
        """Upload the same file under the same key, or under another one."""
        key, body, rows, bad_lines = self.uploads[which % len(self.uploads)]
        self._put(key if same_key else f"{len(self.uploads)}-again.jsonl", body, rows, bad_lines)

    def _put(
        self, key: str, body: bytes, rows: list[tuple[str, str, str | None, bool, int]], bad_lines: int
    ) -> None:
        name = self.stack.outputs["GroundTruthPrefix"] + key
        answer = self.s3.put_object(Bucket=self.bucket, Key=name, Body=body)
        number = len(self.uploads)
        self.uploads.append((key, body, rows, bad_lines))
        self.versions[name, answer["VersionId"]] = (len(rows), bad_lines)
        self.ledger.said += [
            Said(inference_id, label, author, last, minute, (number, line))
            for line, (inference_id, label, author, last, minute) in enumerate(rows)
        ]

    def capture(self, numbers: Iterable[int]) -> None:
        """Let the capture of some predictions arrive."""
        identifiers = [self.identifier(number) for number in numbers]
        lines = [json.dumps(_captured(identifier)) for identifier in identifiers]
        hour = datetime.now(UTC).strftime("%Y/%m/%d/%H")
        self.s3.put_object(
            Bucket=self.bucket,
            Key=f"capture/{self.stack.outputs['EndpointName']}/AllTraffic/{hour}/{uuid.uuid4()}.jsonl",
            Body="\n".join(lines).encode(),
        )
        self.ledger.captured.update(identifiers)

    def start(self, given: Json) -> str:
        """Start the retrain machine."""
        execution = self.stack.start("Retrain", given)
        if given.get("force"):
            self.forced.add(execution.rsplit(":", 1)[-1])
        return execution

    def sweep(self) -> str:
        """Do what the scheduler does at fixed hours."""
        event = json.loads((ROOT / "events/scheduled_sweep.json").read_text())
        return self.start({**event, "id": f"sweep-{uuid.uuid4()}", "time": datetime.now(UTC).isoformat()})

    def sweep_deployments(self) -> None:
        """Do what the other schedule does."""
        self.stack.start("Deploy", {"source": "truthloop.sweep", "detail-type": "Deploy Sweep"})

    def alarm(self, state: str) -> None:
        """Set the accuracy alarm's state."""
        self.cloudwatch.set_alarm_state(
            AlarmName=self.stack.outputs["AccuracyAlarmName"], StateValue=state, StateReason="the test's"
        )

    def violate(self) -> None:
        """Let a monitor find a violation."""
        folder = f"monitoring/{self.stack.outputs['EndpointName']}/2026/11/22/10/{uuid.uuid4()}"
        body = json.dumps({"version": 0.0, "violations": []})
        self.s3.put_object(Bucket=self.bucket, Key=f"{folder}/constraint_violations.json", Body=body.encode())

    def deliver_again(self, which: int) -> None:
        """Deliver an event a second time, as AWS may."""
        self._drain()
        mine = [event for event in self.events if _is_for_us(event)]
        if not mine:
            return
        event = mine[which % len(mine)]
        if event["detail"].get("object", {}).get("key", "").startswith("ground-truth/inbox/"):
            self.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(event))
        else:
            self.start(event)

    def _drain(self) -> None:
        while messages := self.sqs.receive_message(QueueUrl=self.tap, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.events.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.tap, ReceiptHandle=message["ReceiptHandle"])

    def judge(self, which: int, status: str) -> None:
        """Approve or reject a package."""
        packages = self.stack.packages()
        if packages:
            self.stack.judge(packages[which % len(packages)]["ModelPackageArn"], status)

    # -- what goes wrong -----------------------------------------------------------------------------------

    def kill(self, which: int) -> None:
        """End an execution of the retrain machine, whatever it is about to do."""
        running = self.running("Retrain")
        if running:
            self.states.stop_execution(
                executionArn=running[which % len(running)], error="Test", cause="killed by the test"
            )

    def stop_run(self) -> None:
        """Stop the pipeline run that is live."""
        for run in self.live():
            self.sagemaker.stop_pipeline_execution(
                PipelineExecutionArn=run["PipelineExecutionArn"], ClientRequestToken=uuid.uuid4().hex
            )

    # -- what can be seen ----------------------------------------------------------------------------------

    def live(self) -> list[Json]:
        """Return the pipeline runs that are live."""
        return [run for run in self.stack.pipeline_runs() if run["PipelineExecutionStatus"] in LIVE]

    def running(self, machine: str) -> list[str]:
        """Return the executions of ``Retrain`` or ``Deploy`` that run."""
        answer = self.states.list_executions(
            stateMachineArn=self.stack.outputs[f"{machine}StateMachineArn"], statusFilter="RUNNING"
        )
        return [execution["executionArn"] for execution in answer["executions"]]

    def runs(self) -> list[Json]:
        """Return this example's pipeline runs, oldest first."""
        runs = [run for run in self.stack.pipeline_runs() if run["StartTime"] >= self.began]
        return sorted(runs, key=lambda run: run["StartTime"])

    def executions(self, machine: str) -> list[Json]:
        """Return this example's executions."""
        answer = self.states.list_executions(
            stateMachineArn=self.stack.outputs[f"{machine}StateMachineArn"], maxResults=200
        )
        return [one for one in answer["executions"] if one["startDate"] >= self.began]

    def accounts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return per upload how many different lines of it are accepted and how many quarantined."""
        accepted, refused = self.lines("accepted"), self.lines("quarantine")
        good = {_origin(line["origin"]) for line in accepted}
        bad = {_origin(line["source"]) for line in refused}
        return {
            version: (
                sum(origin[:2] == version for origin in good),
                sum(origin[:2] == version for origin in bad),
            )
            for version in self.versions
        }

    def lines(self, folder: str) -> list[Json]:
        """Return every line below ``ground-truth/<folder>/``."""
        return [
            json.loads(line)
            for key in self.stack.keys(f"ground-truth/{folder}/")
            for line in self.read(key).splitlines()
        ]

    def items(self, kind: str) -> list[Json]:
        """Return the loop table's items of a kind as plain values, oldest first."""
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.stack.outputs["LoopTableName"],
            KeyConditionExpression="pk = :kind",
            ExpressionAttributeValues={":kind": {"S": kind}},
        )
        plain = TypeDeserializer().deserialize
        return [{k: plain(v) for k, v in item.items()} for page in pages for item in page["Items"]]

    def described(self, run: Json) -> Json:
        """Return all that SageMaker says of a pipeline run."""
        return dict(
            self.sagemaker.describe_pipeline_execution(PipelineExecutionArn=run["PipelineExecutionArn"])
        )

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    # -- waiting -------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until everything uploaded is accounted for and nothing runs, moves or is owed any more."""
        self.control.let_go()
        _until("every uploaded line being accepted or quarantined", lambda: self.accounts() == self.versions)
        self._rest()

    def _rest(self) -> None:
        looks = 0

        def quiet() -> bool:
            nonlocal looks
            looks = 0 if self._moves() else looks + 1
            return looks >= 3

        _until("quiescence", quiet)

    def _moves(self) -> bool:
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["All"])["Attributes"]
        held = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return bool(
            any(int(attributes[name]) for name in held) or self.running("Retrain") or self.running("Deploy")
        )


def _until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + QUIET_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come within {QUIET_SECONDS} s"
        time.sleep(0.1)


def _origin(value: Json) -> tuple[str, str, int]:
    return value["key"], value["versionId"], value["line"]


def _is_for_us(event: Json) -> bool:
    key = event["detail"].get("object", {}).get("key")
    if key is not None:
        return bool(key.startswith("ground-truth/inbox/") or key.endswith("constraint_violations.json"))
    return bool(event["detail"].get("state", {"value": "ALARM"})["value"] == "ALARM")


_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _record(inference_id: str, label: str, author: str | None, decides: bool, minute: int) -> Json:
    about = {"eventId": inference_id, "eventTime": (_NOON + timedelta(minutes=minute)).isoformat()}
    about["source"] = "decision" if decides else "correction"
    if author is not None:
        about["author"] = author
    label_data = {"data": label, "encoding": "CSV"}
    return {"groundTruthData": label_data, "eventMetadata": about, "eventVersion": "0"}


def _captured(inference_id: str) -> Json:
    image = {"observedContentType": "image/png", "mode": "INPUT", "data": "aW1hZ2U=", "encoding": "BASE64"}
    answer = {"observedContentType": "application/json", "mode": "OUTPUT", "data": "{}", "encoding": "JSON"}
    return {
        "captureData": {"endpointInput": image, "endpointOutput": answer},
        "eventMetadata": {
            "eventId": str(uuid.uuid4()),
            "inferenceId": inference_id,
            "inferenceTime": datetime.now(UTC).isoformat(),
        },
        "eventVersion": "0",
    }
