"""Between a state's JSON and boto3: names, blobs, times and error names as Step Functions has them."""

from __future__ import annotations

import base64
import functools
import json
import re
from datetime import datetime
from typing import Any

import botocore.session
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from local.stepfunctions.history import compact, iso

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+[0-9]*|[0-9]+")
_SERVICES = {
    "sfn": "stepfunctions",
    "eventbridge": "events",
    "cloudwatchlogs": "logs",
    "cloudwatchevents": "events",
    "elasticloadbalancingv2": "elbv2",
    "cognitoidentityprovider": "cognito-idp",
    "costexplorer": "ce",
}
_JAVA_NAMES = {("AttributeValue", "NULL"): "Nul"}
"""Members that the Java SDK calls by another name: ``null`` is a word of Java."""

_SESSION = botocore.session.get_session()


class UnknownIntegrationError(ValueError):
    """A resource names a service or an action that the AWS SDK does not have."""


def pascal(name: str) -> str:
    """Return a member name as the Java SDK, and so Step Functions, writes it: SSEKMSKeyId → SsekmsKeyId."""
    return "".join(word[:1].upper() + word[1:].lower() for word in _WORD.findall(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.cache
def boto_service(name: str) -> str:
    """Return boto's name of a service that an ``aws-sdk`` resource names."""
    if name in _SERVICES:
        return _SERVICES[name]
    for known in _SESSION.get_available_services():
        if _plain(known) == name:
            return str(known)
    raise UnknownIntegrationError(f"The AWS SDK has no service '{name}'")


@functools.cache
def operation(service: str, action: str) -> OperationModel:
    """Return boto's model of an action in camel case."""
    model = _SESSION.get_service_model(service)
    for name in model.operation_names:
        if name[:1].lower() + name[1:] == action:
            return model.operation_model(name)
    raise UnknownIntegrationError(f"The service '{service}' has no action '{action}'")


@functools.cache
def service_prefix(service: str) -> str:
    """Return the first part of a service's error names: DynamoDb, Sfn, SageMaker."""
    return pascal(_SESSION.get_service_model(service).service_id)


_FLAGS = {"true": True, "false": False}


def to_request(value: Any, shape: Shape) -> Any:
    """Return what boto3 expects for a JSON value: members by name in any case, blobs, JSON in strings.

    Texts that hold a number or a boolean become one where the API wants it, as Step Functions reads them.
    """
    if shape.name == "AttributeValue" and isinstance(value, str):
        return {"S": value}
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = {_plain(_JAVA_NAMES.get((shape.name, name), name)): name for name in shape.members}
        members |= {_plain(name): name for name in shape.members}
        request = {}
        for key, item in value.items():
            name = members.get(_plain(key), key)
            if item is None and name in shape.members:
                # Java passes a null as if the member were not there.
                continue
            request[name] = to_request(item, shape.members[name]) if name in shape.members else item
        return request
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [to_request(item, shape.member) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: to_request(item, shape.value) for key, item in value.items()}
    if shape.type_name == "blob" and not isinstance(value, bytes):
        return (value if isinstance(value, str) else compact(value)).encode()
    if shape.type_name == "string" and not isinstance(value, str):
        return compact(value)
    if isinstance(value, str):
        if shape.type_name == "boolean":
            return _FLAGS.get(value.lower(), value)
        if shape.type_name in ("integer", "long") and re.fullmatch(r"-?\d+", value):
            return int(value)
    return value


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _scalar(value: Any, millis: bool) -> Any:
    if isinstance(value, datetime):
        # Java, in which Step Functions calls the APIs, writes a fraction only where there is one.
        return round(value.timestamp() * 1000) if millis else iso(value).replace(".000Z", "Z")
    if isinstance(value, bytes):
        return _bytes(value)
    if hasattr(value, "read"):
        return _bytes(value.read())
    return value


def from_response(value: Any, shape: Shape | None, *, millis: bool = False, rename: bool = True) -> Any:
    """Return a boto3 answer as JSON: Java member names, ISO 8601 or epoch times, bodies as strings."""
    if isinstance(value, dict):
        if isinstance(shape, StructureShape):
            return {
                _JAVA_NAMES.get((shape.name, key), pascal(key)) if rename else key: from_response(
                    item, shape.members[key], millis=millis, rename=rename
                )
                for key, item in value.items()
                if key in shape.members
            }
        inner = shape.value if isinstance(shape, MapShape) else None
        return {key: from_response(item, inner, millis=millis, rename=rename) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        inner = shape.member if isinstance(shape, ListShape) else None
        return [from_response(item, inner, millis=millis, rename=rename) for item in value]
    return _scalar(value, millis)


def sdk_metadata(response: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata members that optimised integrations add to their result."""
    metadata = response.get("ResponseMetadata", {})
    headers = {str(key): str(item) for key, item in metadata.get("HTTPHeaders", {}).items()}
    return {
        "SdkHttpMetadata": {
            "AllHttpHeaders": {key: [item] for key, item in headers.items()},
            "HttpHeaders": headers,
            "HttpStatusCode": metadata.get("HTTPStatusCode", 200),
        },
        "SdkResponseMetadata": {"RequestId": metadata.get("RequestId", "")},
    }


def exception_name(shape_name: str) -> str:
    """Return the Java exception class of an error shape."""
    if shape_name.endswith("Fault"):
        return pascal(shape_name.removesuffix("Fault")) + "Exception"
    name = pascal(shape_name)
    return name if name.endswith("Exception") else f"{name}Exception"


_LEGACY_CODES = {"AWS.SimpleQueueService.NonExistentQueue": "QueueDoesNotExist"}
"""Codes of the old query protocol that services still answer in place of the modelled one."""


@functools.cache
def _error_shapes(service: str) -> dict[str, str]:
    found: list[Any] = _SESSION.get_service_model(service).error_shapes
    return {code: shape.name for shape in found for code in (shape.name, shape.error_code)}


def error_name(error: ClientError, service: str, prefix: str, generic: str) -> str:
    """Return the error name of a failed call: the modelled exception, else the service's general one."""
    code = error.response.get("Error", {}).get("Code", "")
    shape = _error_shapes(service).get(_LEGACY_CODES.get(code, code))
    if shape is None and code == "404":
        # The answer to a HEAD request has no body to name the error: the status stands for the modelled one.
        modelled = _SESSION.get_service_model(service).operation_model(error.operation_name).error_shapes
        shape = modelled[0].name if modelled else None
    return f"{prefix}.{generic if shape is None else exception_name(shape)}"


def modelled_exceptions(service: str) -> set[str]:
    """Return the Java exception classes of a service's modelled errors."""
    return {exception_name(shape) for shape in _error_shapes(service).values()}


def error_cause(error: ClientError, service: str, *, first_sdk: bool) -> str:
    """Return the cause of a failed call with the service, status and request id that AWS appends.

    The first Java SDK, behind the optimised integrations, writes them otherwise than the second.
    """
    metadata = error.response.get("ResponseMetadata", {})
    status, request = metadata.get("HTTPStatusCode", 500), metadata.get("RequestId", "")
    found = error.response.get("Error", {})
    details = (
        f"Service: {service}; Status Code: {status}; Error Code: {found.get('Code', '')}; "
        f"Request ID: {request}; Proxy: null"
        if first_sdk
        else f"Service: {service}, Status Code: {status}, Request ID: {request}"
    )
    return f"{found.get('Message', str(error))} ({details})"


def parsed(text: Any) -> Any:
    """Return JSON text as its value, any other text as it is."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
