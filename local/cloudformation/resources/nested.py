"""AWS::CloudFormation::Stack: a stack within a stack."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import unquote, urlparse

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, words
from local.cloudformation.template import as_text


class NestedStack(ResourceType):
    """A nested stack; its outputs are its attributes ``Outputs.<Name>``."""

    type = "AWS::CloudFormation::Stack"
    applied = words("Parameters TemplateURL Tags")
    inert: ClassVar = {
        "NotificationARNs": "stack events are read, not sent",
        "TimeoutInMinutes": "local resources settle within their own limits",
    }
    required = words("TemplateURL")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the nested stack and wait for it."""
        return self._made(
            site.engine.create_nested(site, read_template(site, properties), _inputs(properties))
        )

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update the nested stack and wait for it."""
        return self._made(
            site.engine.update_nested(site, physical_id, read_template(site, new), _inputs(new))
        )

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the nested stack and wait for it."""
        site.engine.delete_nested(site, physical_id)

    def _made(self, made: tuple[str, dict[str, str]]) -> Created:
        stack_id, outputs = made
        return Created(stack_id, {f"Outputs.{name}": value for name, value in outputs.items()})


def _inputs(properties: Properties) -> dict[str, str]:
    given = properties.get("Parameters", {})
    return {
        str(name): ",".join(map(as_text, value)) if isinstance(value, list) else as_text(value)
        for name, value in given.items()
    }


def read_template(site: Site, properties: Properties) -> str:
    """Return the text at TemplateURL, which must be an object in the embedded S3."""
    url = str(properties["TemplateURL"])
    return read_s3_url(site.client("s3"), url)


def read_s3_url(s3: object, url: str) -> str:
    """Return the text of the object at a path-style or virtual-hosted S3 URL.

    Raises
    ------
    ResourceError
        When the URL does not name an object that exists.
    """
    parts = urlparse(url)
    host, path = parts.hostname or "", unquote(parts.path.lstrip("/"))
    first = host.split(".", 1)[0]
    path_style = host in ("localhost", "127.0.0.1") or first == "s3" or first.startswith("s3-")
    bucket, _, key = path.partition("/") if path_style else (first, "", path)
    try:
        return str(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())  # type: ignore[attr-defined]
    except Exception as error:
        raise ResourceError(f"TemplateURL {url} cannot be read: {error}") from error


TYPES = (NestedStack,)
