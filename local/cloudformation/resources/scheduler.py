"""AWS::Scheduler: schedules and their groups."""

from __future__ import annotations

from typing import ClassVar

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, pick, without, words


class Schedule(ResourceType):
    """A schedule with its one target."""

    type = "AWS::Scheduler::Schedule"
    applied = words(
        "Name Description EndDate FlexibleTimeWindow GroupName ScheduleExpression "
        "ScheduleExpressionTimezone StartDate State Target"
    )
    inert: ClassVar = {"KmsKeyArn": "nothing is encrypted at rest on one machine"}
    required = words("FlexibleTimeWindow ScheduleExpression Target")
    create_only = words("Name GroupName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the schedule."""
        name = str(properties.get("Name") or site.name(64))
        return self._made(name, site.call("scheduler", "create_schedule", **self._request(name, properties)))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Replace the schedule's settings."""
        response = site.call("scheduler", "update_schedule", **self._request(physical_id, new))
        return self._made(physical_id, response)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the schedule."""
        group = pick(properties, ("GroupName",))
        site.remove("scheduler", "delete_schedule", Name=physical_id, **group)

    def _request(self, name: str, properties: Properties) -> Properties:
        return {**without(properties, "KmsKeyArn"), "Name": name}

    def _made(self, name: str, response: Properties) -> Created:
        return Created(name, {"Arn": response["ScheduleArn"]})


class ScheduleGroup(ResourceType):
    """A group of schedules."""

    type = "AWS::Scheduler::ScheduleGroup"
    applied = words("Name Tags")
    create_only = words("Name")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the group."""
        name = str(properties.get("Name") or site.name(64))
        response = site.call("scheduler", "create_schedule_group", Name=name, **pick(properties, ("Tags",)))
        return Created(name, {"Arn": response["ScheduleGroupArn"]})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the tags."""
        arn = site.arn("scheduler", f"schedule-group/{physical_id}")
        site.call("scheduler", "tag_resource", ResourceArn=arn, Tags=new.get("Tags", []))
        return Created(physical_id, {"Arn": arn})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the group."""
        site.remove("scheduler", "delete_schedule_group", Name=physical_id)


TYPES = (Schedule, ScheduleGroup)
