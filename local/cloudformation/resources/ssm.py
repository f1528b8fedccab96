"""AWS::SSM: parameters."""

from __future__ import annotations

from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    tag_map,
    without,
    words,
)


class Parameter(ResourceType):
    """A String or StringList parameter."""

    type = "AWS::SSM::Parameter"
    applied = words("AllowedPattern DataType Description Name Tags Tier Type Value")
    required = words("Type Value")
    create_only = words("Name")

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the parameter; it must not exist yet."""
        name = str(properties.get("Name") or site.name(255))
        tags = [{"Key": key, "Value": value} for key, value in tag_map(properties).items()]
        site.call("ssm", "put_parameter", **{**without(properties, "Tags"), "Name": name}, Tags=tags)
        return self._made(site, name, properties)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the new value."""
        request = {**without(new, "Tags"), "Name": physical_id}
        site.call("ssm", "put_parameter", **request, Overwrite=True)
        return self._made(site, physical_id, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the parameter."""
        site.remove("ssm", "delete_parameter", Name=physical_id)

    def _made(self, site: Site, name: str, properties: Properties) -> Created:
        arn = site.arn("ssm", f"parameter/{name.lstrip('/')}")
        return Created(name, {"Arn": arn, "Type": properties["Type"], "Value": properties["Value"]})


TYPES = (Parameter,)
