"""Where the result of an asynchronous invocation goes: destinations and the older dead-letter queue."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from local.lambda_runtime.errors import InvalidParameterError, NotEmulatedError
from local.lambda_runtime.service import LambdaService, Outcome

log = logging.getLogger("local.lambda")

SERVICES = ("sqs", "sns", "lambda", "events")


@dataclass(frozen=True)
class Result:
    """An event of the asynchronous queue that will not be tried again.

    Attributes
    ----------
    condition
        ``Success``, ``RetriesExhausted`` or ``EventAgeExceeded``.
    attempts
        How often the function was invoked with it.
    outcome
        What the last attempt gave; None when there was none.
    """

    request_id: str
    function_arn: str
    payload: bytes
    condition: str
    attempts: int
    outcome: Outcome | None

    def record(self) -> dict[str, Any]:
        """Return AWS's invocation record."""
        record: dict[str, Any] = {
            "version": "1.0",
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "requestContext": {
                "requestId": self.request_id,
                "functionArn": self.function_arn,
                "condition": self.condition,
                "approximateInvokeCount": self.attempts,
            },
            "requestPayload": json.loads(self.payload),
        }
        if self.outcome is not None:
            context: dict[str, Any] = {"statusCode": 200, "executedVersion": self.outcome.executed_version}
            if self.outcome.failed:
                context["functionError"] = "Unhandled"
            record["responseContext"] = context
            record["responsePayload"] = json.loads(self.outcome.payload or b"null")
        return record


def check(config: dict[str, Any]) -> None:
    """Refuse a destination of a kind that is not delivered to.

    Raises
    ------
    NotEmulatedError, InvalidParameterError
        Naming the destination.
    """
    for side in ("OnSuccess", "OnFailure"):
        arn = (config.get(side) or {}).get("Destination")
        if not arn:
            continue
        parts = arn.split(":")
        if len(parts) < 6 or parts[0] != "arn":
            raise InvalidParameterError(f"The provided destination config {side} is no ARN: {arn}")
        if parts[2] not in SERVICES:
            raise NotEmulatedError(f"asynchronous destinations of the service {parts[2]} ({arn})")


def deliver(lambdas: LambdaService, role: str, arn: str, result: Result) -> None:
    """Send the invocation record to a destination, with the rights of the function's role."""
    record = json.dumps(result.record())
    service, region = arn.split(":")[2:4]
    client = lambdas.client_as(role, service, region)
    if service == "sqs":
        client.send_message(QueueUrl=_queue_url(lambdas, arn), MessageBody=record)
    elif service == "sns":
        client.publish(TopicArn=arn, Message=record)
    elif service == "lambda":
        client.invoke(FunctionName=arn, InvocationType="Event", Payload=record.encode())
    else:
        outcome = "Success" if result.condition == "Success" else "Failure"
        answer = client.put_events(
            Entries=[
                {
                    "Source": "lambda",
                    "DetailType": f"Lambda Function Invocation Result - {outcome}",
                    "Detail": record,
                    "EventBusName": arn,
                    "Resources": [result.function_arn, arn],
                }
            ]
        )
        if answer["FailedEntryCount"]:
            log.error("the event bus %s refused an invocation record: %s", arn, answer["Entries"])


def send_to_dead_letter_queue(lambdas: LambdaService, role: str, arn: str, result: Result) -> None:
    """Send the event itself, with AWS's three attributes, to the function's dead-letter queue or topic."""
    message = ""
    if result.outcome is not None:
        message = str(json.loads(result.outcome.payload).get("errorMessage", ""))
    attributes = {
        "RequestID": {"DataType": "String", "StringValue": result.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": "200" if result.outcome else "429"},
        "ErrorMessage": {"DataType": "String", "StringValue": message[:1024] or result.condition},
    }
    body = result.payload.decode()
    service, region = arn.split(":")[2:4]
    client = lambdas.client_as(role, service, region)
    if service == "sqs":
        client.send_message(QueueUrl=_queue_url(lambdas, arn), MessageBody=body, MessageAttributes=attributes)
    else:
        client.publish(TopicArn=arn, Message=body, MessageAttributes=attributes)


def _queue_url(lambdas: LambdaService, arn: str) -> str:
    account, name = arn.split(":")[4:]
    return f"{lambdas.aws.endpoint}/{account}/{name}"
