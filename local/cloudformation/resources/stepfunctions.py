"""AWS::StepFunctions: state machines, versions and aliases."""

from __future__ import annotations

import json
import re
from typing import Any

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    lower_camel,
    pick,
    words,
)
from local.cloudformation.template import as_text, load_document

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z0-9_]+)\}")


def definition_text(site: Site, properties: Properties) -> str:
    """Return the ASL as JSON with its substitutions applied.

    Raises
    ------
    ResourceError
        When a ``${Name}`` has no substitution, or the definition is given twice or not at all.
    """
    given = [key for key in ("Definition", "DefinitionString", "DefinitionS3Location") if key in properties]
    if len(given) != 1:
        raise ResourceError(
            "exactly one of Definition, DefinitionString and DefinitionS3Location must be given, "
            f"not {' and '.join(given) or 'none'}"
        )
    value = properties[given[0]]
    if given[0] == "DefinitionS3Location":
        request = {"Bucket": value["Bucket"], "Key": value["Key"]}
        if "Version" in value:
            request["VersionId"] = value["Version"]
        value = site.call("s3", "get_object", **request)["Body"].read().decode()
    document = load_document(value) if isinstance(value, str) else value
    if not isinstance(document, dict):
        raise ResourceError(f"{given[0]} is not an object")
    return json.dumps(_substitute(document, properties.get("DefinitionSubstitutions", {}), given[0]))


def _substitute(value: Any, substitutions: Properties, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, substitutions, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, substitutions, f"{where}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match.group(1) not in substitutions:
            known = ", ".join(sorted(substitutions)) or "none"
            raise ResourceError(
                f"{match.group(0)} at {where} has no value in DefinitionSubstitutions (given: {known})"
            )
        return as_text(substitutions[match.group(1)])

    return _PLACEHOLDER.sub(replace, value)


class StateMachine(ResourceType):
    """A state machine."""

    type = "AWS::StepFunctions::StateMachine"
    applied = words(
        "Definition DefinitionString DefinitionS3Location DefinitionSubstitutions "
        "LoggingConfiguration RoleArn StateMachineName StateMachineType Tags TracingConfiguration"
    )
    required = words("RoleArn")
    create_only = words("StateMachineName StateMachineType")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the machine."""
        name = str(properties.get("StateMachineName") or site.name(80))
        response = site.call(
            "stepfunctions",
            "create_state_machine",
            name=name,
            type=properties.get("StateMachineType", "STANDARD"),
            tags=lower_camel(properties.get("Tags", [])),
            **self._settings(site, properties),
        )
        return self._made(str(response["stateMachineArn"]))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update definition, role and settings."""
        settings = self._settings(site, new)
        if "LoggingConfiguration" in old:
            settings.setdefault("loggingConfiguration", {"level": "OFF"})
        if "TracingConfiguration" in old:
            settings.setdefault("tracingConfiguration", {"enabled": False})
        site.call("stepfunctions", "update_state_machine", stateMachineArn=physical_id, **settings)
        if new.get("Tags"):
            tags = lower_camel(new["Tags"])
            site.call("stepfunctions", "tag_resource", resourceArn=physical_id, tags=tags)
        return self._made(physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the machine."""
        site.remove("stepfunctions", "delete_state_machine", stateMachineArn=physical_id)

    def _settings(self, site: Site, properties: Properties) -> Properties:
        settings = {"definition": definition_text(site, properties), "roleArn": properties["RoleArn"]}
        settings |= lower_camel(pick(properties, ("LoggingConfiguration", "TracingConfiguration")))
        return settings

    def _made(self, arn: str) -> Created:
        return Created(arn, {"Arn": arn, "Name": arn.rsplit(":", 1)[1]})


TYPES = (StateMachine,)
