"""AWS::SQS: queues and their policies."""

from __future__ import annotations

import json
from typing import Any

from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    is_true,
    tag_map,
    words,
)

_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": "262144",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
    "RedrivePolicy": "",
    "RedriveAllowPolicy": "",
    "KmsMasterKeyId": "",
    "SqsManagedSseEnabled": "true",
}
"""What an attribute returns to when its property leaves the template."""


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class Queue(ResourceType):
    """A standard or FIFO queue."""

    type = "AWS::SQS::Queue"
    applied = words(
        "QueueName FifoQueue ContentBasedDeduplication DelaySeconds MaximumMessageSize "
        "MessageRetentionPeriod ReceiveMessageWaitTimeSeconds RedrivePolicy RedriveAllowPolicy "
        "VisibilityTimeout KmsMasterKeyId KmsDataKeyReusePeriodSeconds SqsManagedSseEnabled "
        "DeduplicationScope FifoThroughputLimit Tags"
    )
    create_only = words("QueueName FifoQueue")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the queue with its attributes and tags."""
        fifo = is_true(properties.get("FifoQueue", False))
        name = str(properties.get("QueueName") or site.name(80, ".fifo" if fifo else ""))
        attributes = self._attributes(properties)
        if fifo:
            attributes["FifoQueue"] = "true"
        url = site.call(
            "sqs", "create_queue", QueueName=name, Attributes=attributes, tags=tag_map(properties)
        )["QueueUrl"]
        return self._made(site, str(url))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the attributes; those that left the template return to their defaults."""
        attributes = self._attributes(new)
        attributes |= {key: _DEFAULTS[key] for key in old if key in _DEFAULTS and key not in new}
        if attributes:
            site.call("sqs", "set_queue_attributes", QueueUrl=physical_id, Attributes=attributes)
        gone = sorted(set(tag_map(old)) - set(tag_map(new)))
        if gone:
            site.call("sqs", "untag_queue", QueueUrl=physical_id, TagKeys=gone)
        if tag_map(new):
            site.call("sqs", "tag_queue", QueueUrl=physical_id, Tags=tag_map(new))
        return self._made(site, physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the queue with its messages."""
        site.remove("sqs", "delete_queue", QueueUrl=physical_id)

    def _attributes(self, properties: Properties) -> dict[str, str]:
        skipped = ("QueueName", "FifoQueue", "Tags")
        return {key: _text(value) for key, value in properties.items() if key not in skipped}

    def _made(self, site: Site, url: str) -> Created:
        name = url.rsplit("/", 1)[1]
        return Created(url, {"Arn": site.arn("sqs", name), "QueueName": name, "QueueUrl": url})


class QueuePolicy(ResourceType):
    """One policy for one or more queues."""

    type = "AWS::SQS::QueuePolicy"
    applied = words("PolicyDocument Queues")
    required = applied

    def create(self, site: Site, properties: Properties) -> Created:
        """Set the policy on every queue."""
        self._put(site, properties["Queues"], json.dumps(properties["PolicyDocument"]))
        identity = site.name()
        return Created(identity, {"Id": identity})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the new policy; queues that left the list lose theirs."""
        self._put(site, [url for url in old["Queues"] if url not in new["Queues"]], "")
        self._put(site, new["Queues"], json.dumps(new["PolicyDocument"]))
        return Created(physical_id, {"Id": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Take the policy from every queue that still exists."""
        for url in properties["Queues"]:
            site.remove("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": ""})

    def _put(self, site: Site, urls: list[str], policy: str) -> None:
        for url in urls:
            site.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": policy})


TYPES = (Queue, QueuePolicy)
