"""AWS::Lambda: functions, layers, permissions, event source mappings, versions, aliases.

Function URLs are missing: nothing here serves them.
"""

from __future__ import annotations

import io
import time
import zipfile
from typing import ClassVar

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    pick,
    tag_map,
    without,
    words,
)

_CONFIGURATION = words(
    "Description Environment EphemeralStorage Handler Layers LoggingConfig MemorySize Role "
    "Runtime Timeout TracingConfig DeadLetterConfig"
)
_RESET: Properties = {
    "Description": "",
    "Environment": {"Variables": {}},
    "EphemeralStorage": {"Size": 512},
    "Layers": [],
    "MemorySize": 128,
    "Timeout": 3,
    "TracingConfig": {"Mode": "PassThrough"},
}
"""What a setting returns to when its property leaves the template."""


class Function(ResourceType):
    """A function from a zip: in S3, or inline text."""

    type = "AWS::Lambda::Function"
    applied = _CONFIGURATION | words(
        "FunctionName Code PackageType Architectures ReservedConcurrentExecutions Tags"
    )
    inert: ClassVar = {
        "KmsKeyArn": "nothing is encrypted at rest on one machine",
        "RuntimeManagementConfig": "there is one runtime: the interpreter that the machine has",
    }
    required = words("Code Role")
    create_only = words("FunctionName PackageType")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the function and set its concurrency."""
        name = str(properties.get("FunctionName") or site.name(64))
        request = pick(properties, _CONFIGURATION | {"Architectures", "PackageType"})
        site.call(
            "lambda",
            "create_function",
            FunctionName=name,
            Code=_code(properties),
            Tags=tag_map(properties),
            **request,
        )
        try:
            return self._finish(site, name, {}, properties)
        except Exception:
            site.remove("lambda", "delete_function", FunctionName=name)
            raise

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update code and configuration where they changed."""
        if new["Code"] != old["Code"] or new.get("Architectures") != old.get("Architectures"):
            extra = pick(new, ("Architectures",))
            site.call("lambda", "update_function_code", FunctionName=physical_id, **_code(new), **extra)
        before, after = pick(old, _CONFIGURATION), pick(new, _CONFIGURATION)
        if before != after:
            after |= {key: value for key, value in _RESET.items() if key in before and key not in after}
            site.call("lambda", "update_function_configuration", FunctionName=physical_id, **after)
        return self._finish(site, physical_id, old, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the function."""
        site.remove("lambda", "delete_function", FunctionName=physical_id)

    def _finish(self, site: Site, name: str, old: Properties, new: Properties) -> Created:
        key = "ReservedConcurrentExecutions"
        if key in new and new[key] != old.get(key):
            site.call("lambda", "put_function_concurrency", FunctionName=name, **{key: new[key]})
        elif key in old and key not in new:
            site.call("lambda", "delete_function_concurrency", FunctionName=name)
        arn = site.arn("lambda", f"function:{name}")
        gone = sorted(set(tag_map(old)) - set(tag_map(new)))
        if gone:
            site.call("lambda", "untag_resource", Resource=arn, TagKeys=gone)
        if old and tag_map(new) != tag_map(old):
            site.call("lambda", "tag_resource", Resource=arn, Tags=tag_map(new))
        return Created(name, {"Arn": arn})


def _code(properties: Properties) -> Properties:
    code: Properties = dict(properties["Code"])
    if "ZipFile" not in code:
        return code
    extension = "mjs" if str(properties.get("Runtime", "")).startswith("nodejs") else "py"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(f"index.{extension}", str(code["ZipFile"]))
    return {"ZipFile": archive.getvalue()}


class LayerVersion(ResourceType):
    """One version of a layer; every change makes another."""

    type = "AWS::Lambda::LayerVersion"
    applied = words("CompatibleArchitectures CompatibleRuntimes Content Description LayerName LicenseInfo")
    required = words("Content")
    create_only = applied

    def create(self, site: Site, properties: Properties) -> Created:
        """Publish the version."""
        name = str(properties.get("LayerName") or site.name(64))
        response = site.call("lambda", "publish_layer_version", **{**properties, "LayerName": name})
        arn = str(response["LayerVersionArn"])
        return Created(arn, {"LayerVersionArn": arn, "Arn": arn})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the version."""
        name, version = physical_id.split(":")[-2:]
        site.remove("lambda", "delete_layer_version", LayerName=name, VersionNumber=version)


class Permission(ResourceType):
    """A statement of a function's resource policy."""

    type = "AWS::Lambda::Permission"
    applied = words(
        "Action FunctionName Principal SourceAccount SourceArn EventSourceToken PrincipalOrgID "
        "FunctionUrlAuthType"
    )
    inert: ClassVar = {"InvokedViaFunctionUrl": "narrows a grant; the embedded AWS enforces none"}
    required = words("Action FunctionName Principal")
    create_only = applied | words("InvokedViaFunctionUrl")

    def create(self, site: Site, properties: Properties) -> Created:
        """Add the statement."""
        identity = site.name(100)
        request = without(properties, "InvokedViaFunctionUrl")
        site.call("lambda", "add_permission", StatementId=identity, **request)
        return Created(identity, {"Id": identity})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Remove the statement."""
        site.remove(
            "lambda", "remove_permission", FunctionName=properties["FunctionName"], StatementId=physical_id
        )


_MAPPING = words(
    "BatchSize BisectBatchOnFunctionError DestinationConfig Enabled FilterCriteria "
    "FunctionName FunctionResponseTypes MaximumBatchingWindowInSeconds "
    "MaximumRecordAgeInSeconds MaximumRetryAttempts ParallelizationFactor ScalingConfig"
)


class EventSourceMapping(ResourceType):
    """A poller from a queue or stream to a function."""

    type = "AWS::Lambda::EventSourceMapping"
    applied = _MAPPING | words("EventSourceArn StartingPosition Tags")
    required = words("FunctionName EventSourceArn")
    create_only = words("EventSourceArn StartingPosition")
    settle_s = 30.0

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the mapping."""
        request = without(properties, "Tags")
        tags = {"Tags": tag_map(properties)} if "Tags" in properties else {}
        identity = site.call("lambda", "create_event_source_mapping", **request, **tags)["UUID"]
        return self._made(site, str(identity))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update the mapping; settings that left the template return to their defaults."""
        request = pick(new, _MAPPING)
        if "FilterCriteria" in old:
            request.setdefault("FilterCriteria", {})
        if "FunctionResponseTypes" in old:
            request.setdefault("FunctionResponseTypes", [])
        if "ScalingConfig" in old:
            request.setdefault("ScalingConfig", {})
        if "MaximumBatchingWindowInSeconds" in old:
            request.setdefault("MaximumBatchingWindowInSeconds", 0)
        request.setdefault("Enabled", True)
        site.call("lambda", "update_event_source_mapping", UUID=physical_id, **request)
        return self._made(site, physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the mapping and wait until it is gone, so that its queue can follow."""
        client = site.client("lambda")
        site.remove("lambda", "delete_event_source_mapping", UUID=physical_id)
        deadline = time.monotonic() + self.settle_s
        while time.monotonic() < deadline:
            try:
                client.get_event_source_mapping(UUID=physical_id)
            except client.exceptions.ResourceNotFoundException:
                return
            if site.aws.stopping.wait(0.1):
                raise ResourceError("the embedded AWS is stopping")
        raise ResourceError(
            f"the event source mapping {physical_id} is still there after {self.settle_s:.0f} s"
        )

    def _made(self, site: Site, identity: str) -> Created:
        arn = site.arn("lambda", f"event-source-mapping:{identity}")
        return Created(identity, {"Id": identity, "EventSourceMappingArn": arn})


class EventInvokeConfig(ResourceType):
    """Retries, age limit and destinations of asynchronous invocations."""

    type = "AWS::Lambda::EventInvokeConfig"
    applied = words("DestinationConfig FunctionName MaximumEventAgeInSeconds MaximumRetryAttempts Qualifier")
    required = words("FunctionName Qualifier")
    create_only = words("FunctionName Qualifier")

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the configuration."""
        site.call("lambda", "put_function_event_invoke_config", **_unqualified(properties))
        return Created(f"{properties['FunctionName']}|{properties['Qualifier']}")

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the configuration over the old one."""
        return self.create(site, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the configuration."""
        names = pick(_unqualified(properties), ("FunctionName", "Qualifier"))
        site.remove("lambda", "delete_function_event_invoke_config", **names)


def _unqualified(properties: Properties) -> Properties:
    # $LATEST is what the API means without a qualifier.
    return without(properties, "Qualifier") if properties.get("Qualifier") == "$LATEST" else properties


class Version(ResourceType):
    """A published version of a function."""

    type = "AWS::Lambda::Version"
    applied = words("CodeSha256 Description FunctionName")
    required = words("FunctionName")
    create_only = applied

    def create(self, site: Site, properties: Properties) -> Created:
        """Publish the version."""
        response = site.call("lambda", "publish_version", **properties)
        arn = str(response["FunctionArn"])
        version = str(response["Version"])
        if not arn.endswith(f":{version}"):
            arn = f"{arn}:{version}"
        return Created(arn, {"Version": version, "FunctionArn": arn})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the version."""
        name, version = physical_id.split(":")[-2:]
        site.remove("lambda", "delete_function", FunctionName=name, Qualifier=version)


class Alias(ResourceType):
    """A name for a version."""

    type = "AWS::Lambda::Alias"
    applied = words("Description FunctionName FunctionVersion Name RoutingConfig")
    required = words("FunctionName FunctionVersion Name")
    create_only = words("FunctionName Name")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the alias."""
        arn = str(site.call("lambda", "create_alias", **self._request(properties))["AliasArn"])
        return Created(arn, {"AliasArn": arn})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Point the alias elsewhere."""
        site.call("lambda", "update_alias", **self._request(new))
        return Created(physical_id, {"AliasArn": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the alias."""
        site.remove("lambda", "delete_alias", **pick(properties, ("FunctionName", "Name")))

    def _request(self, properties: Properties) -> Properties:
        if "RoutingConfig" not in properties:
            return properties
        weights = properties["RoutingConfig"].get("AdditionalVersionWeights", [])
        routing = {
            "AdditionalVersionWeights": {item["FunctionVersion"]: item["FunctionWeight"] for item in weights}
        }
        return {**properties, "RoutingConfig": routing}


TYPES = (
    Function,
    LayerVersion,
    Permission,
    EventSourceMapping,
    EventInvokeConfig,
    Version,
    Alias,
)
