"""AWS::Events: rules with their targets, and buses."""

from __future__ import annotations

import json

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, pick, words

_RULE = ("Description", "EventBusName", "EventPattern", "RoleArn", "ScheduleExpression", "State")


class Rule(ResourceType):
    """A rule and its targets."""

    type = "AWS::Events::Rule"
    applied = frozenset(_RULE) | words("Name Targets Tags")
    create_only = words("Name EventBusName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the rule and its targets."""
        name = str(properties.get("Name") or site.name(64))
        try:
            return self._put(site, name, {}, properties)
        except Exception:
            self._remove(site, name, properties)
            raise

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the rule over the old one; remove targets that left."""
        return self._put(site, _rule_name(physical_id), old, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Remove the targets, then the rule."""
        self._remove(site, _rule_name(physical_id), properties)

    def _put(self, site: Site, name: str, old: Properties, new: Properties) -> Created:
        bus = pick(new, ("EventBusName",))
        arn = site.call("events", "put_rule", Name=name, Tags=new.get("Tags", []), **pick(new, _RULE))[
            "RuleArn"
        ]
        wanted = {target["Id"] for target in new.get("Targets", [])}
        left = [target["Id"] for target in old.get("Targets", []) if target["Id"] not in wanted]
        if left:
            site.call("events", "remove_targets", Rule=name, Ids=left, **bus)
        if new.get("Targets"):
            site.call("events", "put_targets", Rule=name, Targets=new["Targets"], **bus)
        custom = bus and bus["EventBusName"] != "default"
        return Created(
            f"{bus['EventBusName']}|{name}" if custom else name, {"Arn": str(arn), "RuleName": name}
        )

    def _remove(self, site: Site, name: str, properties: Properties) -> None:
        bus = pick(properties, ("EventBusName",))
        targets = [target["Id"] for target in properties.get("Targets", [])]
        if targets:
            site.remove("events", "remove_targets", Rule=name, Ids=targets, **bus)
        site.remove("events", "delete_rule", Name=name, **bus)


def _rule_name(physical_id: str) -> str:
    return physical_id.rpartition("|")[2]


class EventBus(ResourceType):
    """A custom event bus."""

    type = "AWS::Events::EventBus"
    applied = words("Name Description Policy Tags")
    required = words("Name")
    create_only = words("Name Description")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the bus and its policy."""
        name = str(properties["Name"])
        extra = pick(properties, ("Description", "Tags"))
        arn = str(site.call("events", "create_event_bus", Name=name, **extra)["EventBusArn"])
        self._policy(site, name, properties)
        return Created(name, {"Arn": arn, "Name": name})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the policy and tags."""
        self._policy(site, physical_id, new)
        arn = site.arn("events", f"event-bus/{physical_id}")
        if new.get("Tags"):
            site.call("events", "tag_resource", ResourceARN=arn, Tags=new["Tags"])
        return Created(physical_id, {"Arn": arn, "Name": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the bus."""
        site.remove("events", "delete_event_bus", Name=physical_id)

    def _policy(self, site: Site, name: str, properties: Properties) -> None:
        if "Policy" in properties:
            policy = properties["Policy"]
            text = policy if isinstance(policy, str) else json.dumps(policy)
            site.call("events", "put_permission", EventBusName=name, Policy=text)


TYPES = (Rule, EventBus)
