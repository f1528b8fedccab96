"""Batches of an SQS event source mapping: the event, the filter, and what the function's answer means."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from local.events import patterns

PAYLOAD_LIMIT = 6 * 1024 * 1024


class BadBatchResponseError(Exception):
    """The answer of a function that reports batch item failures is malformed: the whole batch has failed."""


def record(message: Any, queue_arn: str) -> dict[str, Any]:
    """Return one record of the event, as Lambda gives it to the function."""
    attributes = {
        "ApproximateReceiveCount": str(message.approximate_receive_count),
        "SentTimestamp": str(message.sent_timestamp),
        "SenderId": message.sender_id,
        "ApproximateFirstReceiveTimestamp": str(message.approximate_first_receive_timestamp),
    }
    trace = (message.system_attributes or {}).get("AWSTraceHeader", {}).get("StringValue")
    optional = {
        "AWSTraceHeader": trace,
        "SequenceNumber": message.sequence_number,
        "MessageGroupId": message.group_id,
        "MessageDeduplicationId": message.deduplication_id,
    }
    body: dict[str, Any] = {
        "messageId": message.id,
        "receiptHandle": message.receipt_handle,
        "body": message.body,
        "attributes": attributes | {name: value for name, value in optional.items() if value is not None},
        "messageAttributes": {name: _attribute(value) for name, value in message.message_attributes.items()},
        "md5OfBody": message.body_md5,
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }
    if message.message_attributes:
        body["md5OfMessageAttributes"] = message.attribute_md5
    return body


def _attribute(value: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
    if value.get("BinaryValue") is not None:
        binary = value["BinaryValue"]
        entry["binaryValue"] = base64.b64encode(binary).decode() if isinstance(binary, bytes) else binary
    else:
        entry["stringValue"] = value.get("StringValue")
    return entry


def passes_filter(criteria: dict[str, Any] | None, item: dict[str, Any]) -> bool:
    """Tell whether a record passes the mapping's filter: any of its patterns, all without any.

    A pattern for ``body`` that is an object sees the body as JSON; a list of strings sees it as text.
    """
    filters = (criteria or {}).get("Filters") or []
    return not filters or any(_matches(json.loads(entry.get("Pattern") or "{}"), item) for entry in filters)


def _matches(pattern: dict[str, Any], item: dict[str, Any]) -> bool:
    seen = dict(item)
    if isinstance(pattern.get("body"), dict):
        try:
            seen["body"] = json.loads(item["body"])
        except ValueError:
            return False
        if not isinstance(seen["body"], dict):
            return False
    return patterns.matches(pattern, seen)


def split(records: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records in groups whose event stays below Lambda's payload limit."""
    group: list[dict[str, Any]] = []
    size = 0
    for item in records:
        length = len(json.dumps(item)) + 2
        if group and size + length > PAYLOAD_LIMIT - 1024:
            yield group
            group, size = [], 0
        group.append(item)
        size += length
    if group:
        yield group


def failed_items(payload: bytes, message_ids: set[str]) -> set[str]:
    """Return the ids that the function reports as failed.

    The rules are AWS's: a null or empty answer, and a null or empty list, mean success; a null, empty or
    unknown id, or a wrong key, means that everything has failed.

    Raises
    ------
    BadBatchResponseError
        When the answer is malformed.
    """
    try:
        answer = json.loads(payload or b"null")
    except ValueError as error:
        raise BadBatchResponseError(f"the answer is no JSON: {error}") from error
    if answer is None:
        return set()
    if not isinstance(answer, dict):
        raise BadBatchResponseError("the answer is no object with batchItemFailures")
    failures = answer.get("batchItemFailures")
    if failures is None:
        return set()
    if not isinstance(failures, list):
        raise BadBatchResponseError("batchItemFailures is no list")
    failed: set[str] = set()
    for entry in failures:
        identifier = entry.get("itemIdentifier") if isinstance(entry, dict) else None
        if not identifier or identifier not in message_ids:
            raise BadBatchResponseError(f"{entry!r} names no message of the batch by itemIdentifier")
        failed.add(identifier)
    return failed
