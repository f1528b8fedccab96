"""AWS::SNS: topics, their policies, subscriptions."""

from __future__ import annotations

import json
from typing import Any

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, is_true, words


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


_ATTRIBUTES = (
    "DisplayName",
    "KmsMasterKeyId",
    "ContentBasedDeduplication",
    "SignatureVersion",
    "TracingConfig",
)


class Topic(ResourceType):
    """A topic, with subscriptions where the template writes them inline."""

    type = "AWS::SNS::Topic"
    applied = words(
        "TopicName DisplayName FifoTopic KmsMasterKeyId ContentBasedDeduplication "
        "SignatureVersion TracingConfig Subscription Tags"
    )
    create_only = words("TopicName FifoTopic")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the topic and its inline subscriptions."""
        fifo = is_true(properties.get("FifoTopic", False))
        name = str(properties.get("TopicName") or site.name(256, ".fifo" if fifo else ""))
        attributes = {key: _text(properties[key]) for key in _ATTRIBUTES if key in properties}
        if fifo:
            attributes["FifoTopic"] = "true"
        arn = str(
            site.call(
                "sns", "create_topic", Name=name, Attributes=attributes, Tags=properties.get("Tags", [])
            )["TopicArn"]
        )
        self._subscribe(site, arn, properties.get("Subscription", []))
        return self._made(arn)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set changed attributes; add and remove inline subscriptions and tags."""
        for key in _ATTRIBUTES:
            if new.get(key) != old.get(key):
                site.call(
                    "sns",
                    "set_topic_attributes",
                    TopicArn=physical_id,
                    AttributeName=key,
                    AttributeValue=_text(new.get(key, "")),
                )
        before, after = old.get("Subscription", []), new.get("Subscription", [])
        self._unsubscribe(site, physical_id, [item for item in before if item not in after])
        self._subscribe(site, physical_id, [item for item in after if item not in before])
        if new.get("Tags"):
            site.call("sns", "tag_resource", ResourceArn=physical_id, Tags=new["Tags"])
        kept = {tag["Key"] for tag in new.get("Tags", [])}
        gone = [tag["Key"] for tag in old.get("Tags", []) if tag["Key"] not in kept]
        if gone:
            site.call("sns", "untag_resource", ResourceArn=physical_id, TagKeys=gone)
        return self._made(physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the topic with its subscriptions."""
        site.remove("sns", "delete_topic", TopicArn=physical_id)

    def _subscribe(self, site: Site, arn: str, entries: list[Properties]) -> None:
        for entry in entries:
            site.call("sns", "subscribe", TopicArn=arn, **entry)

    def _unsubscribe(self, site: Site, arn: str, entries: list[Properties]) -> None:
        wanted = {(entry["Protocol"], entry["Endpoint"]) for entry in entries}
        for page in site.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn):
            for subscription in page["Subscriptions"]:
                if (subscription["Protocol"], subscription["Endpoint"]) in wanted:
                    site.remove("sns", "unsubscribe", SubscriptionArn=subscription["SubscriptionArn"])

    def _made(self, arn: str) -> Created:
        return Created(arn, {"TopicArn": arn, "TopicName": arn.rsplit(":", 1)[1]})


class TopicPolicy(ResourceType):
    """One policy for one or more topics."""

    type = "AWS::SNS::TopicPolicy"
    applied = words("PolicyDocument Topics")
    required = applied

    def create(self, site: Site, properties: Properties) -> Created:
        """Set the policy on every topic."""
        for arn in properties["Topics"]:
            site.call(
                "sns",
                "set_topic_attributes",
                TopicArn=arn,
                AttributeName="Policy",
                AttributeValue=json.dumps(properties["PolicyDocument"]),
            )
        identity = site.name()
        return Created(identity, {"Id": identity})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the new policy."""
        self.create(site, new)
        return Created(physical_id, {"Id": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Do nothing: a topic always has a policy, and AWS keeps the last one as well."""


class Subscription(ResourceType):
    """A subscription of an endpoint to a topic."""

    type = "AWS::SNS::Subscription"
    applied = words(
        "TopicArn Protocol Endpoint FilterPolicy FilterPolicyScope RawMessageDelivery "
        "RedrivePolicy DeliveryPolicy SubscriptionRoleArn"
    )
    required = words("TopicArn Protocol")
    create_only = words("TopicArn Protocol Endpoint")

    def create(self, site: Site, properties: Properties) -> Created:
        """Subscribe with all attributes."""
        basic = ("TopicArn", "Protocol", "Endpoint")
        attributes = {key: _text(value) for key, value in properties.items() if key not in basic}
        arn = site.call(
            "sns",
            "subscribe",
            **{key: properties[key] for key in basic if key in properties},
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]
        return Created(str(arn), {"Arn": str(arn)})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set each changed attribute."""
        for key in sorted(self.applied - self.create_only):
            if new.get(key) != old.get(key):
                site.call(
                    "sns",
                    "set_subscription_attributes",
                    SubscriptionArn=physical_id,
                    AttributeName=key,
                    AttributeValue=_text(new.get(key, "")),
                )
        return Created(physical_id, {"Arn": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Unsubscribe."""
        site.remove("sns", "unsubscribe", SubscriptionArn=physical_id)


TYPES = (Topic, TopicPolicy, Subscription)
