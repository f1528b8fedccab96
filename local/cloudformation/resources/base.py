"""What a resource handler is, and what it may use.

A handler names every property that it applies. Any other property fails the resource, except those
in :attr:`ResourceType.inert`, each with the reason why it has no effect on one machine.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from botocore.exceptions import ClientError, ParamValidationError

from local.cloudformation.errors import ResourceError
from local.cloudformation.shapes import fit
from local.context import LocalAws

Properties = dict[str, Any]
GONE = frozenset(
    {
        "404",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchBucketPolicy",
        "NoSuchEntity",
        "NotFound",
        "NotFoundException",
        "ParameterNotFound",
        "QueueDoesNotExist",
        "RepositoryNotFoundException",
        "ResourceNotFound",
        "ResourceNotFoundException",
        "StateMachineDoesNotExist",
    }
)
"""Error codes that say that what is to be deleted is gone already."""


@dataclass(frozen=True)
class Created:
    """A live resource: what Ref gives and what Fn::GetAtt can give."""

    physical_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where a resource is made: the stack, its region, and clients that loop back over HTTP."""

    aws: LocalAws
    region: str
    account_id: str
    partition: str
    stack_name: str
    stack_id: str
    logical_id: str
    engine: Any

    def client(self, service: str) -> Any:
        """Return a boto3 client for this region of the embedded AWS."""
        return self.aws.client(service, self.region)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of ``resource`` in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"

    def name(self, limit: int = 64, suffix: str = "") -> str:
        """Return a fresh name ``<stack>-<logical id>-<random>`` of at most ``limit`` characters."""
        tail = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(12)) + suffix
        head = f"{self.stack_name}-{self.logical_id}"[: limit - len(tail) - 1]
        return f"{head}-{tail}"

    def call(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """Call an API operation with values as a template gives them.

        Raises
        ------
        ResourceError
            With the service's own message, or naming the property that the API does not have.
        """
        client = self.client(service)
        api_name = client.meta.method_to_api_mapping[operation]
        shape = client.meta.service_model.operation_model(api_name).input_shape
        unknown = sorted(set(parameters) - set(shape.members))
        if unknown:
            raise ResourceError(f"Encountered unsupported property {unknown[0]}")
        typed = {name: fit(shape.members[name], value, name) for name, value in parameters.items()}
        try:
            return getattr(client, operation)(**typed)  # type: ignore[no-any-return]
        except ClientError as error:
            raise ServiceRefusedError(service, api_name, error) from error
        except ParamValidationError as error:
            raise ResourceError(f"Properties validation failed: {error}") from error

    def remove(self, service: str, operation: str, /, **parameters: Any) -> None:
        """Call a deleting operation; what is gone already is fine."""
        try:
            self.call(service, operation, **parameters)
        except ServiceRefusedError as error:
            if error.code not in GONE:
                raise


class ServiceRefusedError(ResourceError):
    """The service answered with an error."""

    def __init__(self, service: str, operation: str, error: ClientError) -> None:
        details = error.response.get("Error", {})
        self.code = str(details.get("Code", ""))
        super().__init__(f"{details.get('Message', error)} (Service: {service}, {operation}, {self.code})")


class ResourceType:
    """One resource type; subclasses say what they apply and do it."""

    type: ClassVar[str]
    applied: ClassVar[frozenset[str]]
    """Top-level properties that reach the service."""
    inert: ClassVar[Mapping[str, str]] = {}
    """Properties accepted without effect: name -> why that loses nothing on one machine."""
    required: ClassVar[frozenset[str]] = frozenset()
    create_only: ClassVar[frozenset[str]] = frozenset()
    """Properties whose change replaces the resource."""
    needs_named_iam: ClassVar[str | None] = None
    """For IAM types: the name property whose use needs CAPABILITY_NAMED_IAM; "" for none."""

    def check(self, properties: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with the names of the top-level properties."""
        known = self.applied | set(self.inert)
        problems = [
            f"Encountered unsupported property {name}: {self.type} in the embedded AWS would ignore it"
            for name in sorted(set(properties) - known)
        ]
        problems += [
            f"Properties validation failed: the required property {name} is missing"
            for name in sorted(self.required - set(properties))
        ]
        return problems

    def create(self, site: Site, properties: Properties) -> Created:
        """Make the resource."""
        raise NotImplementedError

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Change the live resource to ``new``; called only when no create-only property changed."""
        raise NotImplementedError

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Remove the live resource; one that is gone already is no error."""
        raise NotImplementedError


def words(text: str) -> frozenset[str]:
    """Return the set of the words of ``text``."""
    return frozenset(text.split())


def pick(properties: Mapping[str, Any], names: Iterable[str]) -> Properties:
    """Return those of ``names`` that ``properties`` has."""
    return {name: properties[name] for name in names if name in properties}


def without(properties: Mapping[str, Any], *names: str) -> Properties:
    """Return ``properties`` less ``names``."""
    return {name: value for name, value in properties.items() if name not in names}


def rename(properties: Mapping[str, Any], names: Mapping[str, str]) -> Properties:
    """Return ``properties`` with keys renamed by ``names``."""
    return {names.get(name, name): value for name, value in properties.items()}


def lower_camel(value: Any) -> Any:
    """Return ``value`` with the first letter of every key in lower case, as some APIs write them."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: lower_camel(item) for key, item in value.items()}
    if isinstance(value, list):
        return [lower_camel(item) for item in value]
    return value


def is_true(value: Any) -> bool:
    """Return whether a template's boolean, typed or text, is true."""
    return str(value).lower() == "true"


def tag_map(properties: Mapping[str, Any]) -> dict[str, str]:
    """Return the Tags property (a list of Key and Value, or a map) as a dict."""
    tags = properties.get("Tags") or {}
    if isinstance(tags, dict):
        return {str(key): str(value) for key, value in tags.items()}
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags}
