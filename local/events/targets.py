"""Send one payload to one target, through the same API that any other client uses.

The one place that knows how each kind of target is called and which of its errors are worth a retry.
Rules, schedules, S3 notifications, alarm actions and SNS dead letters all deliver through it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    ParamValidationError,
)

from local.context import LocalAws

_GONE = {
    "ResourceNotFoundException",
    "ResourceNotFound",
    "StateMachineDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "NotFound",
    "NotFoundException",
    "TopicNotFound",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
_BUSY = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}


class UnsupportedTargetError(ValueError):
    """The embedded AWS has no way to deliver to this kind of target."""


class DeliveryError(Exception):
    """A target did not take a payload.

    Parameters
    ----------
    code
        EventBridge's dead-letter error code, such as ``NO_RESOURCE``.
    message
        What the target said.
    retryable
        Whether another attempt can succeed without anybody changing anything.
    """

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True)
class Payload:
    """What to send.

    Attributes
    ----------
    body
        The text for the target.
    key
        Names this delivery; the same for every attempt, so that a repeated attempt can be recognised.
    event
        The event behind the body, where there is one.
    """

    body: str
    key: str
    event: dict[str, Any] | None = None
    subject: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Arn:
    """The parts of an ARN that targets need."""

    text: str
    service: str
    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> Arn:
        """Split ``arn:partition:service:region:account:resource``."""
        parts = text.split(":", 5)
        if len(parts) != 6 or parts[0] != "arn":
            raise UnsupportedTargetError(f"{text!r} is no ARN; give arn:aws:service:region:account:resource")
        return cls(text, parts[2], parts[3], parts[4], parts[5])


def queue_url(aws: LocalAws, arn: Arn) -> str:
    """Return the URL under which the embedded AWS serves the queue ``arn``."""
    return f"{aws.endpoint}/{arn.account}/{arn.resource}"


Sender = Callable[[LocalAws, Arn, dict[str, Any], Payload], None]


def _to_sqs(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    extra: dict[str, Any] = {}
    group = (target.get("SqsParameters") or {}).get("MessageGroupId")
    if group:
        extra["MessageGroupId"] = group
    if payload.attributes:
        extra["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in payload.attributes.items()
        }
    client = aws.client("sqs", arn.region)
    client.send_message(QueueUrl=queue_url(aws, arn), MessageBody=payload.body, **extra)


def _to_sns(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    extra: dict[str, Any] = {"Subject": payload.subject} if payload.subject else {}
    if arn.resource.endswith(".fifo"):
        extra |= {"MessageGroupId": payload.key[:128], "MessageDeduplicationId": payload.key[:128]}
    aws.client("sns", arn.region).publish(TopicArn=arn.text, Message=payload.body, **extra)


def _to_lambda(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    aws.client("lambda", arn.region).invoke(
        FunctionName=arn.text, InvocationType="Event", Payload=payload.body.encode()
    )


def _to_state_machine(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    client = aws.client("stepfunctions", arn.region)
    try:
        client.start_execution(stateMachineArn=arn.text, name=payload.key[:80], input=payload.body)
    except client.exceptions.ExecutionAlreadyExists:
        # An earlier attempt started it and its answer was lost: this event has its execution.
        return


def _to_pipeline(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    parameters = (target.get("SageMakerPipelineParameters") or {}).get("PipelineParameterList") or []
    aws.client("sagemaker", arn.region).start_pipeline_execution(
        PipelineName=arn.resource.split("/", 1)[1],
        PipelineParameters=parameters,
        ClientRequestToken=payload.key[:128].ljust(32, "0"),
    )


def _to_log_group(aws: LocalAws, arn: Arn, target: dict[str, Any], payload: Payload) -> None:
    client = aws.client("logs", arn.region)
    group = arn.resource.removeprefix("log-group:").removesuffix(":*")
    stream = str(uuid.uuid4())
    client.create_log_stream(logGroupName=group, logStreamName=stream)
    entry = {"timestamp": int(time.time() * 1000), "message": payload.body}
    client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[entry])


_SENDERS: dict[str, Sender] = {
    "sqs": _to_sqs,
    "sns": _to_sns,
    "lambda": _to_lambda,
    "states": _to_state_machine,
    "sagemaker": _to_pipeline,
    "logs": _to_log_group,
}
_RESOURCES = {
    "lambda": "function:",
    "states": "stateMachine:",
    "sagemaker": "pipeline/",
    "logs": "log-group:",
}


def check(arn_text: str) -> Arn:
    """Return the parsed ARN of a target that :func:`send` can deliver to.

    Raises
    ------
    UnsupportedTargetError
        When it cannot.
    """
    arn = Arn.parse(arn_text)
    if arn.service not in _SENDERS or not arn.resource.startswith(_RESOURCES.get(arn.service, "")):
        raise UnsupportedTargetError(
            f"the embedded AWS does not deliver to {arn_text}; it knows SQS queues, SNS topics, "
            "Lambda functions, state machines, SageMaker pipelines, log groups and event buses"
        )
    return arn


def send(aws: LocalAws, target: dict[str, Any], payload: Payload) -> None:
    """Make one attempt to deliver ``payload`` to ``target`` (an EventBridge target: ``Arn`` and parameters).

    Raises
    ------
    DeliveryError
        When the target refused or could not be reached.
    """
    arn = check(target["Arn"])
    attempt(lambda: _SENDERS[arn.service](aws, arn, target, payload))


def attempt(call: Callable[[], Any]) -> Any:
    """Run one API call and translate what it raises into :class:`DeliveryError`."""
    try:
        return call()
    except ClientError as error:
        raise _from_client_error(error) from error
    except ParamValidationError as error:
        raise DeliveryError("SDK_CLIENT_ERROR", str(error), retryable=False) from error
    except (HTTPClientError, EndpointConnectionError) as error:
        raise DeliveryError("CONNECTION_FAILURE", str(error), retryable=True) from error
    except BotoCoreError as error:
        raise DeliveryError("SDK_CLIENT_ERROR", str(error), retryable=False) from error


def _from_client_error(error: ClientError) -> DeliveryError:
    code = str(error.response["Error"].get("Code", ""))
    message = str(error.response["Error"].get("Message", "")) or str(error)
    status = int(error.response["ResponseMetadata"].get("HTTPStatusCode", 500))
    text = f"{code}: {message}"
    if code in _GONE or status == 404:
        return DeliveryError("NO_RESOURCE", text, retryable=False)
    if code in _DENIED or status == 403:
        return DeliveryError("NO_PERMISSIONS", text, retryable=False)
    if code in _BUSY or status == 429:
        return DeliveryError("THROTTLING", text, retryable=True)
    if status >= 500:
        return DeliveryError("ERROR_FROM_TARGET", text, retryable=True)
    return DeliveryError("SDK_CLIENT_ERROR", text, retryable=False)


def put_dead_letter(aws: LocalAws, queue_arn: str, body: str, attributes: dict[str, str]) -> None:
    """Send an undeliverable payload to a dead-letter queue."""
    # SQS refuses empty attribute values and AWS cuts messages that are longer than an attribute may be.
    kept = {name: value[:1024] for name, value in attributes.items() if value}
    send(aws, {"Arn": queue_arn}, Payload(body, key="", attributes=kept))
