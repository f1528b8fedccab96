"""What EventBridge Scheduler calls: templated targets, and any API operation as a universal target."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from local.context import LocalAws
from local.events import targets

_UNIVERSAL = re.compile(r"arn:aws[\w-]*:scheduler:::aws-sdk:(\w+):(\w+)")
_READ_ONLY = re.compile(
    r"(get|describe|list|poll|receive|search|scan|query|select|read|lookup|discover|validate|retrieve|batchGet|"
    r"batchDescribe|batchRead|transactGet|adminGet|adminList|testMigration|testConnection|translateDocument|"
    r"isAuthorized|invokeModel)(?![a-z])"
)
_SDK_NAMES = {
    "sfn": "stepfunctions",
    "eventbridge": "events",
    "cloudwatchlogs": "logs",
    "cloudwatchevents": "events",
    "cognitoidentityprovider": "cognito-idp",
    "sagemakerruntime": "sagemaker-runtime",
    "applicationautoscaling": "application-autoscaling",
}
"""Services whose name in an aws-sdk ARN is not boto3's."""


class InvalidTargetError(ValueError):
    """A schedule's target that EventBridge Scheduler refuses, or that the embedded AWS cannot call."""


@dataclass(frozen=True)
class Occurrence:
    """One time at which a schedule is due."""

    schedule_arn: str
    scheduled_time: str
    account: str
    region: str

    @property
    def key(self) -> str:
        """Name what this occurrence starts; the same for every attempt."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.schedule_arn}|{self.scheduled_time}"))

    @property
    def execution_id(self) -> str:
        """Return the id that a schedule's input may refer to; the same for every attempt."""
        return self.key.replace("-", "")[:16]


def check(target: dict[str, Any]) -> None:
    """Raise :class:`InvalidTargetError` unless the target can be called."""
    arn, text = target.get("Arn", ""), target.get("Input")
    universal = _UNIVERSAL.fullmatch(arn)
    if universal:
        _operation(*universal.groups())
        try:
            json.loads(text or "{}")
        except ValueError as error:
            raise InvalidTargetError(
                f"The Input of the universal target {arn} is not valid JSON: {error}"
            ) from error
    elif ":event-bus/" in arn:
        parameters = target.get("EventBridgeParameters") or {}
        if not parameters.get("DetailType") or not parameters.get("Source"):
            raise InvalidTargetError(
                "EventBridgeParameters with DetailType and Source are required for an event bus."
            )
    else:
        try:
            targets.check(arn)
        except targets.UnsupportedTargetError as error:
            raise InvalidTargetError(
                f"Provided Arn is not in correct format or not supported: {error}"
            ) from error
        if (
            arn.endswith(".fifo")
            and ":sqs:" in arn
            and not (target.get("SqsParameters") or {}).get("MessageGroupId")
        ):
            raise InvalidTargetError("SqsParameters with MessageGroupId are required for a FIFO queue.")
    policy = target.get("RetryPolicy") or {}
    if not 0 <= int(policy.get("MaximumRetryAttempts", 0)) <= 185:
        raise InvalidTargetError("MaximumRetryAttempts must be between 0 and 185.")
    if not 60 <= int(policy.get("MaximumEventAgeInSeconds", 60)) <= 86_400:
        raise InvalidTargetError("MaximumEventAgeInSeconds must be between 60 and 86400.")


def payload(target: dict[str, Any], occurrence: Occurrence, attempt: int) -> str:
    """Return the target's input with the context attributes filled in."""
    text = target.get("Input")
    if text is None:
        return json.dumps(
            {
                "version": "0",
                "id": occurrence.execution_id,
                "detail-type": "Scheduled Event",
                "source": "aws.scheduler",
                "account": occurrence.account,
                "time": occurrence.scheduled_time,
                "region": occurrence.region,
                "resources": [occurrence.schedule_arn],
                "detail": "{}",
            }
        )
    context = {
        "schedule-arn": occurrence.schedule_arn,
        "scheduled-time": occurrence.scheduled_time,
        "execution-id": occurrence.execution_id,
        "attempt-number": str(attempt),
    }
    return re.sub(r"<aws\.scheduler\.([a-z-]+)>", lambda match: context.get(match[1], match[0]), str(text))


def invoke(aws: LocalAws, target: dict[str, Any], occurrence: Occurrence, attempt: int) -> None:
    """Make one attempt.

    Raises
    ------
    DeliveryError
        When the target refused or could not be reached.
    """
    body = payload(target, occurrence, attempt)
    arn = target["Arn"]
    universal = _UNIVERSAL.fullmatch(arn)
    if universal:
        targets.attempt(lambda: _call(aws, occurrence.region, universal[1], universal[2], body))
    elif ":event-bus/" in arn:
        targets.attempt(lambda: _put_event(aws, target, body))
    else:
        targets.send(aws, target, targets.Payload(body, key=occurrence.key))


def _put_event(aws: LocalAws, target: dict[str, Any], body: str) -> None:
    arn, parameters = targets.Arn.parse(target["Arn"]), target["EventBridgeParameters"]
    entry = {
        "EventBusName": arn.text,
        "Source": parameters["Source"],
        "DetailType": parameters["DetailType"],
        "Detail": body,
    }
    result = aws.client("events", arn.region).put_events(Entries=[entry])["Entries"][0]
    if "ErrorCode" in result:
        message = f"{result['ErrorCode']}: {result['ErrorMessage']}"
        raise targets.DeliveryError("SDK_CLIENT_ERROR", message, retryable=False)


# -- universal targets -----------------------------------------------------------------------------


def _call(aws: LocalAws, region: str, service: str, action: str, body: str) -> None:
    model = _operation(service, action)
    try:
        arguments = json.loads(body or "{}")
    except ValueError as error:
        raise targets.DeliveryError(
            "INVALID_JSON", f"the Input is no JSON: {error}", retryable=False
        ) from error
    if model.input_shape is not None:
        arguments = _named(arguments, model.input_shape)
    if service == "sqs" and "QueueUrl" in arguments:
        # A URL of AWS names the queue as well as one of ours.
        arguments["QueueUrl"] = aws.endpoint + "/" + "/".join(arguments["QueueUrl"].split("/")[-2:])
    getattr(aws.client(_boto_name(service), region), xform_name(model.name))(**arguments)


def _boto_name(service: str) -> str:
    return _SDK_NAMES.get(service, service)


@cache
def _operation(service: str, action: str) -> OperationModel:
    if _READ_ONLY.match(action):
        raise InvalidTargetError(
            f"{service}:{action} only reads; a schedule's universal target cannot call it."
        )
    try:
        model = botocore.session.get_session().get_service_model(_boto_name(service))
    except UnknownServiceError as error:
        raise InvalidTargetError(f"There is no service {service} for a universal target.") from error
    name = action[:1].upper() + action[1:]
    if name not in model.operation_names:
        raise InvalidTargetError(f"The service {service} has no operation {action} for a universal target.")
    return model.operation_model(name)


def _named(value: Any, shape: Shape) -> Any:
    """Spell the names of parameters as boto3 does; schedules write them with a capital letter."""
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        spelled = {member.lower(): member for member in shape.members}
        named = {}
        for key, inner in value.items():
            member = spelled.get(key.lower(), key)
            named[member] = _named(inner, shape.members[member]) if member in shape.members else inner
        return named
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_named(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _named(inner, shape.value) for key, inner in value.items()}
    if shape.type_name == "string" and isinstance(value, dict | list):
        return json.dumps(value)
    return value
