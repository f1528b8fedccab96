"""SNS topics that deliver in the background, with filters, raw delivery, retries and dead-letter queues.

Mail goes nowhere: what would be mailed is kept as ``mail/*.json`` in the work directory of the embedded AWS.
Subscriptions to mail addresses and to loopback URLs count as confirmed.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.sns.exceptions import SNSInvalidParameter
from moto.sns.models import SNSBackend, Subscription

from local.context import LocalAws
from local.events import patterns, targets
from local.events.delivery import Deliverer, Failure, Job, RetryPolicy

log = logging.getLogger("local.events")

PROTOCOLS = ("sqs", "lambda", "http", "https", "email", "email-json")
HTTP_RETRIES = 3
HTTP_TIMEOUT = 15.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Topics:
    """Hooks moto's SNS so that subscriptions are served as on AWS."""

    def __init__(self, aws: LocalAws, deliverer: Deliverer) -> None:
        self._aws = aws
        self._deliverer = deliverer

    def install(self) -> None:
        """Replace what a subscription does with a message, and refuse endpoints that nobody could reach."""
        subscribe = SNSBackend.subscribe
        topics = self

        def checked_subscribe(backend: Any, topic_arn: str, endpoint: str, protocol: str) -> Any:
            if protocol not in PROTOCOLS:
                raise SNSInvalidParameter(
                    f"Invalid parameter: the embedded AWS does not deliver by {protocol}; "
                    f"use {', '.join(PROTOCOLS)}"
                )
            if protocol in ("http", "https") and urlsplit(endpoint).hostname not in _LOOPBACK:
                raise SNSInvalidParameter(f"Invalid parameter: Endpoint {endpoint} is not on this machine")
            return subscribe(backend, topic_arn, endpoint, protocol)

        Subscription.publish = lambda subscription, *args, **kwargs: topics.publish(
            subscription, *args, **kwargs
        )
        Subscription.private_key = lambda _: _private_key()
        SNSBackend.subscribe = checked_subscribe

    def publish(
        self,
        subscription: Any,
        message: str,
        message_id: str,
        subject: str | None = None,
        message_attributes: dict[str, Any] | None = None,
        group_id: str | None = None,
        deduplication_id: str | None = None,
        message_structure: str | None = None,
    ) -> None:
        """Start the delivery of one message to one subscription, if its filter lets it pass."""
        attributes = message_attributes or {}
        if not accepts(subscription._filter_policy, subscription.attributes, attributes, message):
            return
        if message_structure == "json":
            message = subscription._parse_message_structure(message, subscription.protocol)
        if subscription.topic.fifo_topic and not deduplication_id:
            deduplication_id = message_id
        envelope = subscription.get_post_data(message, message_id, subject, message_attributes=attributes)
        raw = str(subscription.attributes.get("RawMessageDelivery")).lower() == "true"
        protocol = subscription.protocol
        send: Callable[[], None]
        body = message if raw else json.dumps(envelope)
        if protocol == "sqs":
            extra = {"MessageGroupId": group_id, "MessageDeduplicationId": deduplication_id}
            given: dict[str, Any] = {name: value for name, value in extra.items() if value}
            if raw and attributes:
                given["MessageAttributes"] = {name: _for_sqs(value) for name, value in attributes.items()}
            send = lambda: self._to_queue(subscription.endpoint, body, given)  # noqa: E731
        elif protocol == "lambda":
            body = json.dumps(_invocation(subscription.arn, envelope, subject, attributes))
            payload = targets.Payload(body, key=message_id)
            send = lambda: targets.send(self._aws, {"Arn": subscription.endpoint}, payload)  # noqa: E731
        elif protocol in ("http", "https"):
            send = lambda: _post(subscription, envelope, body, raw=raw)  # noqa: E731
        else:
            send = lambda: self._keep_mail(subscription, message, message_id, subject)  # noqa: E731
        self._deliverer.start(self._job(subscription, message_id, body, send))

    def _job(self, subscription: Any, message_id: str, body: str, send: Callable[[], None]) -> Job:
        redrive = json.loads(subscription.attributes.get("RedrivePolicy") or "{}")

        def dead_letter(failure: Failure) -> tuple[str, dict[str, str]]:
            attributes = {
                "RequestID": message_id,
                "ErrorCode": failure.error.code,
                "ErrorMessage": failure.error.message,
            }
            return body, attributes

        return Job(
            what=f"message {message_id} of {subscription.topic.arn} to {subscription.endpoint}",
            attempt=lambda _: send(),
            policy=RetryPolicy(attempts=HTTP_RETRIES)
            if subscription.protocol.startswith("http")
            else RetryPolicy(),
            dead_letter_arn=redrive.get("deadLetterTargetArn"),
            dead_letter=dead_letter,
        )

    def _to_queue(self, endpoint: str, body: str, extra: dict[str, Any]) -> None:
        arn = targets.check(endpoint)
        client = self._aws.client("sqs", arn.region)
        url = targets.queue_url(self._aws, arn)
        targets.attempt(lambda: client.send_message(QueueUrl=url, MessageBody=body, **extra))

    def _keep_mail(self, subscription: Any, message: str, message_id: str, subject: str | None) -> None:
        folder = self._aws.workdir / "mail"
        folder.mkdir(exist_ok=True)
        mail = {
            "to": subscription.endpoint,
            "subject": subject or "AWS Notification Message",
            "body": message,
            "topic": subscription.topic.arn,
            "time": datetime.now(UTC).isoformat(),
        }
        (folder / f"{message_id}.json").write_text(json.dumps(mail, indent=2))
        log.info("mail to %s kept in %s", subscription.endpoint, folder)


def accepts(
    policy: dict[str, Any] | None,
    subscription_attributes: dict[str, Any],
    message_attributes: dict[str, Any],
    message: str,
) -> bool:
    """Return whether a filter policy lets a message pass; its grammar is that of event patterns."""
    if not policy:
        return True
    if subscription_attributes.get("FilterPolicyScope") == "MessageBody":
        try:
            body = json.loads(message)
        except ValueError:
            return False
        return isinstance(body, dict) and patterns.matches(policy, body)
    return patterns.matches(policy, {name: _plain(value) for name, value in message_attributes.items()})


def _plain(attribute: dict[str, Any]) -> Any:
    kind, value = str(attribute["Type"]), attribute["Value"]
    if kind.startswith("Number"):
        return float(value)
    if kind == "String.Array":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _for_sqs(attribute: dict[str, Any]) -> dict[str, Any]:
    kind, value = str(attribute["Type"]), attribute["Value"]
    if kind.startswith("Binary"):
        return {"DataType": kind, "BinaryValue": base64.b64decode(value)}
    return {"DataType": kind, "StringValue": str(value)}


def _invocation(
    subscription_arn: str, envelope: dict[str, Any], subject: str | None, attributes: dict[str, Any]
) -> dict[str, Any]:
    """Return the event with which SNS invokes a function."""
    described = {
        key: value for key, value in envelope.items() if key not in ("SigningCertURL", "UnsubscribeURL")
    }
    described |= {
        "Subject": subject,
        "SigningCertUrl": envelope["SigningCertURL"],
        "UnsubscribeUrl": envelope["UnsubscribeURL"],
        "MessageAttributes": attributes,
    }
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription_arn,
        "Sns": described,
    }
    return {"Records": [record]}


def _post(subscription: Any, envelope: dict[str, Any], body: str, *, raw: bool) -> None:
    headers = {
        "Content-Type": "text/plain; charset=UTF-8",
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": envelope["MessageId"],
        "x-amz-sns-topic-arn": envelope["TopicArn"],
        "x-amz-sns-subscription-arn": subscription.arn,
    }
    if raw:
        headers["x-amz-sns-rawdelivery"] = "true"
    try:
        answer = requests.post(
            subscription.endpoint,
            data=body.encode(),
            headers=headers,
            timeout=HTTP_TIMEOUT,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise targets.DeliveryError("CONNECTION_FAILURE", str(error), retryable=True) from error
    if not answer.ok:
        permanent = 400 <= answer.status_code < 500 and answer.status_code != 429
        message = f"{subscription.endpoint} answered {answer.status_code} {answer.reason}"
        raise targets.DeliveryError("ERROR_FROM_TARGET", message, retryable=not permanent)


@cache
def _private_key() -> rsa.RSAPrivateKey:
    # moto makes a key per subscription, which costs a second of CPU each; the signature only has to verify.
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
