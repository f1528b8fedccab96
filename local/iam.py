"""Roles that mean something: a call that the caller's role does not grant is refused, as on AWS.

The functions, jobs and endpoints run with access keys that :mod:`local.lambda_runtime.identity` gave
out for their roles. For those keys the *action* must be granted by the role's policies, if it has any;
resources and conditions are not evaluated here (``tests/contract/test_grants.py`` holds them to rules).
Every other key is the user's and may do everything. With ``TRUTHLOOP_LOCAL_CALLS`` set to a path, the
actions that each role needed are written there as JSON when the server stops.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import AccessDeniedError, JsonRESTError
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.models import iam_backends
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket

from local.context import LocalAws
from local.lambda_runtime.identity import role_of

_CREDENTIAL = re.compile(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/")
_PREFIXES = {"monitoring": "cloudwatch", "email": "ses"}
"""Where the signing name of a service is not the prefix of its IAM actions."""
_S3_ACTIONS = {
    "HeadObject": "GetObject",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "DeleteObjects": "DeleteObject",
}
"""S3 operations whose IAM action has another name (Amazon S3 user guide, required permissions)."""
_TRANSACTION_ACTIONS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}

_INSECURE = {"Bool": {"aws:SecureTransport": "false"}}


class Calls:
    """Which role made which call; safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, role: str, actions: Iterable[str]) -> None:
        """Keep that ``role`` needed ``actions``."""
        with self._lock:
            self._made[role].update(actions)

    def by_role(self) -> dict[str, list[str]]:
        """Return the actions by role name, both sorted."""
        with self._lock:
            return {role: sorted(actions) for role, actions in sorted(self._made.items())}


def install(aws: LocalAws) -> None:
    """Check every signed request of a role's key before moto serves it."""
    calls = Calls()

    def authorize(self: Any, iam_request_cls: type, resource: str = "*") -> None:
        match = _CREDENTIAL.search(self.headers.get("Authorization", ""))
        role_arn = role_of(match.group(1)) if match else None
        if match is None or role_arn is None:
            return
        needed = actions_of(match.group(2), self)
        role = role_arn.rsplit("/", 1)[-1]
        calls.add(role, needed)
        granted = granted_actions(aws.account_id, role)
        if granted is None:
            return
        for action in needed:
            if not any(fnmatch.fnmatchcase(action.lower(), grant.lower()) for grant in granted):
                refuse(self, role_arn, action)

    ActionAuthenticatorMixin._authenticate_and_authorize_action = authorize
    FakeBucket.get_permission = bucket_permission
    if path := os.environ.get("TRUTHLOOP_LOCAL_CALLS"):

        def keep() -> None:
            Path(path).write_text(json.dumps(calls.by_role(), indent=1))

        aws.on_stop(keep)


def bucket_permission(self: FakeBucket, action: str, resource: str) -> PermissionResult:
    """Judge a bucket's policy; moto's own judgement takes no notice of conditions.

    The loopback interface stands in for TLS here, so a statement about insecure transport never applies.
    """
    if self.policy is None:
        return PermissionResult.NEUTRAL
    policy = json.loads(self.policy)
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    policy["Statement"] = [item for item in statements if item.get("Condition") != _INSECURE]
    if not policy["Statement"]:
        return PermissionResult.NEUTRAL
    return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)


def actions_of(signing_name: str, request: Any) -> list[str]:
    """Return the IAM actions that a request needs, such as ``["dynamodb:PutItem"]``."""
    prefix = _PREFIXES.get(signing_name, signing_name)
    operation = request._get_action()
    if isinstance(operation, list):
        operation = operation[0]
    if prefix == "s3":
        action = _S3_ACTIONS.get(operation, operation)
        if action == "GetObject" and "versionId=" in request.uri:
            action = "GetObjectVersion"
        return [f"s3:{action}"]
    if prefix == "dynamodb" and operation == "TransactWriteItems":
        items = json.loads(request.raw_body)["TransactItems"]
        return sorted({f"dynamodb:{_TRANSACTION_ACTIONS[kind]}" for item in items for kind in item})
    if prefix == "lambda" and operation == "Invoke":
        return ["lambda:InvokeFunction"]
    return [f"{prefix}:{operation}"]


def granted_actions(account_id: str, role_name: str) -> list[str] | None:
    """Return the actions that the Allow statements of a role's policies name (wildcards as written).

    None for a role without any policy, or that is not there: it is what a quick experiment makes, not a
    deployment, and is not judged.
    """
    roles = iam_backends[account_id]["aws"].roles.values()
    role = next((role for role in roles if role.name == role_name), None)
    if role is None:
        return None
    managed = [
        version.document
        for policy in role.managed_policies.values()
        for version in policy.versions
        if version.version_id == policy.default_version_id
    ]
    documents = [*role.policies.values(), *managed]
    if not documents:
        return None
    granted: list[str] = []
    for document in documents:
        granted += _allowed(document if isinstance(document, str) else json.dumps(document))
    return granted


@lru_cache(maxsize=1024)
def _allowed(document: str) -> tuple[str, ...]:
    """Return the actions that a policy allows: read once, asked for at each call."""
    statements = json.loads(document)["Statement"]
    allowed: list[str] = []
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement["Effect"] == "Allow":
            actions = statement.get("Action", [])
            allowed += actions if isinstance(actions, list) else [actions]
    return tuple(allowed)


def refuse(request: Any, role_arn: str, action: str) -> None:
    """Answer as IAM does.

    Raises
    ------
    S3ClientError, AccessDeniedError, JsonRESTError
        Always, in the protocol of the request.
    """
    message = (
        f"User: {role_arn} is not authorized to perform: {action}"
        f" because no identity-based policy allows the {action} action"
    )
    if action.startswith("s3:"):
        raise S3ClientError("AccessDenied", message)
    if "x-www-form-urlencoded" in request.headers.get("Content-Type", ""):
        raise AccessDeniedError(role_arn, action)
    raise JsonRESTError("AccessDeniedException", message)
