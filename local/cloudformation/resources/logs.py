"""AWS::Logs: log groups. Metric filters are missing: nothing here evaluates them."""

from __future__ import annotations

from typing import ClassVar

from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    tag_map,
    words,
)


class LogGroup(ResourceType):
    """A log group with its retention."""

    type = "AWS::Logs::LogGroup"
    applied = words("LogGroupName RetentionInDays KmsKeyId Tags")
    inert: ClassVar = {
        "LogGroupClass": "STANDARD and INFREQUENT_ACCESS differ in price and queries, not in storage"
    }
    create_only = words("LogGroupName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the group."""
        name = str(properties.get("LogGroupName") or site.name(512))
        extra = {"kmsKeyId": properties["KmsKeyId"]} if "KmsKeyId" in properties else {}
        site.call("logs", "create_log_group", logGroupName=name, tags=tag_map(properties), **extra)
        return self.update(site, name, {}, properties)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the retention."""
        if "RetentionInDays" in new:
            days = new["RetentionInDays"]
            site.call("logs", "put_retention_policy", logGroupName=physical_id, retentionInDays=days)
        elif "RetentionInDays" in old:
            site.call("logs", "delete_retention_policy", logGroupName=physical_id)
        if old and tag_map(new) != tag_map(old):
            gone = sorted(set(tag_map(old)) - set(tag_map(new)))
            if gone:
                site.call("logs", "untag_log_group", logGroupName=physical_id, tags=gone)
            site.call("logs", "tag_log_group", logGroupName=physical_id, tags=tag_map(new))
        return Created(physical_id, {"Arn": site.arn("logs", f"log-group:{physical_id}:*")})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the group with its streams."""
        site.remove("logs", "delete_log_group", logGroupName=physical_id)


TYPES = (LogGroup,)
