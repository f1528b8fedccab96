"""AWS::S3: buckets with their configuration, and bucket policies."""

from __future__ import annotations

from typing import Any

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    is_true,
    pick,
    rename,
    without,
    words,
)


class Bucket(ResourceType):
    """A bucket; its contents are never deleted with it, as on AWS."""

    type = "AWS::S3::Bucket"
    applied = words(
        "BucketName VersioningConfiguration BucketEncryption PublicAccessBlockConfiguration "
        "OwnershipControls LifecycleConfiguration NotificationConfiguration CorsConfiguration "
        "ObjectLockEnabled Tags"
    )
    create_only = words("BucketName ObjectLockEnabled")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the bucket, then give it each configuration."""
        name = str(properties.get("BucketName") or site.name(63).lower())
        request: dict[str, Any] = {"Bucket": name}
        if site.region != "us-east-1":
            request["CreateBucketConfiguration"] = {"LocationConstraint": site.region}
        elif _exists(site, name):
            # CreateBucket succeeds in us-east-1 for a bucket that one owns; CloudFormation does not adopt it.
            raise ResourceError(f"{name} already exists")
        if is_true(properties.get("ObjectLockEnabled", False)):
            request["ObjectLockEnabledForBucket"] = True
        site.call("s3", "create_bucket", **request)
        try:
            self._configure(site, name, {}, properties)
        except Exception:
            site.remove("s3", "delete_bucket", Bucket=name)
            raise
        return self._made(site, name)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put each changed configuration; take away each that is no longer there."""
        self._configure(site, physical_id, old, new)
        return self._made(site, physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the bucket, which must be empty."""
        site.remove("s3", "delete_bucket", Bucket=physical_id)

    def _made(self, site: Site, name: str) -> Created:
        return Created(
            name,
            {
                "Arn": f"arn:{site.partition}:s3:::{name}",
                "DomainName": f"{name}.s3.amazonaws.com",
                "RegionalDomainName": f"{name}.s3.{site.region}.amazonaws.com",
            },
        )

    def _configure(self, site: Site, name: str, old: Properties, new: Properties) -> None:
        for key, (put, argument, build, drop) in _CONFIGURATIONS.items():
            if key in new and new[key] != old.get(key):
                site.call("s3", put, Bucket=name, **{argument: build(new[key])})
            elif key in old and key not in new:
                operation, extra = drop
                site.call("s3", operation, Bucket=name, **extra)


def _exists(site: Site, name: str) -> bool:
    return any(bucket["Name"] == name for bucket in site.client("s3").list_buckets()["Buckets"])


def _encryption(value: Any) -> Any:
    rules = [
        rename(rule, {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"})
        for rule in value["ServerSideEncryptionConfiguration"]
    ]
    return {"Rules": rules}


def _lifecycle(value: Any) -> Any:
    return {"Rules": [_lifecycle_rule(rule) for rule in value["Rules"]]}


def _lifecycle_rule(rule: Properties) -> Properties:
    """Return the API's rule: the template's flat filter and day counts live in structures there."""
    built = pick(rule, ("Status", "AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"))
    if "Id" in rule:
        built["ID"] = rule["Id"]
    conditions = pick(rule, ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan"))
    tags = rule.get("TagFilters", [])
    if len(conditions) + len(tags) > 1:
        built["Filter"] = {"And": {**conditions, **({"Tags": tags} if tags else {})}}
    elif tags:
        built["Filter"] = {"Tag": tags[0]}
    else:
        built["Filter"] = conditions or {"Prefix": ""}
    expiration = rename(
        pick(rule, ("ExpirationInDays", "ExpirationDate", "ExpiredObjectDeleteMarker")),
        {"ExpirationInDays": "Days", "ExpirationDate": "Date"},
    )
    if expiration:
        built["Expiration"] = expiration
    if "NoncurrentVersionExpirationInDays" in rule:
        built["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["NoncurrentVersionExpirationInDays"]}
    if "Transitions" in rule:
        built["Transitions"] = [
            rename(item, {"TransitionInDays": "Days", "TransitionDate": "Date"})
            for item in rule["Transitions"]
        ]
    if "NoncurrentVersionTransitions" in rule:
        built["NoncurrentVersionTransitions"] = [
            rename(item, {"TransitionInDays": "NoncurrentDays"})
            for item in rule["NoncurrentVersionTransitions"]
        ]
    handled = words(
        "Id Status Prefix ObjectSizeGreaterThan ObjectSizeLessThan TagFilters "
        "AbortIncompleteMultipartUpload NoncurrentVersionExpiration "
        "NoncurrentVersionExpirationInDays ExpirationInDays ExpirationDate "
        "ExpiredObjectDeleteMarker Transitions NoncurrentVersionTransitions"
    )
    return built | without(rule, *handled)


def _notification(value: Any) -> Any:
    built: dict[str, Any] = without(
        value,
        "EventBridgeConfiguration",
        "LambdaConfigurations",
        "QueueConfigurations",
        "TopicConfigurations",
    )
    bridge = value.get("EventBridgeConfiguration")
    if bridge is not None and is_true(bridge.get("EventBridgeEnabled", True)):
        built["EventBridgeConfiguration"] = {}
    for key, target, api_key, api_target in (
        ("LambdaConfigurations", "Function", "LambdaFunctionConfigurations", "LambdaFunctionArn"),
        ("QueueConfigurations", "Queue", "QueueConfigurations", "QueueArn"),
        ("TopicConfigurations", "Topic", "TopicConfigurations", "TopicArn"),
    ):
        entries = [
            {
                api_target: entry[target],
                "Events": [entry["Event"]],
                **({"Filter": _key_filter(entry["Filter"])} if "Filter" in entry else {}),
                **without(entry, target, "Event", "Filter"),
            }
            for entry in value.get(key, [])
        ]
        if entries:
            built[api_key] = entries
    return built


def _key_filter(value: Any) -> Any:
    return {"Key": {"FilterRules": value["S3Key"]["Rules"]}}


def _cors(value: Any) -> Any:
    names = {"Id": "ID", "MaxAge": "MaxAgeSeconds", "ExposedHeaders": "ExposeHeaders"}
    return {"CORSRules": [rename(rule, names) for rule in value["CorsRules"]]}


def _same(value: Any) -> Any:
    return value


_CONFIGURATIONS: dict[str, tuple[str, str, Any, tuple[str, Properties]]] = {
    "VersioningConfiguration": (
        "put_bucket_versioning",
        "VersioningConfiguration",
        _same,
        ("put_bucket_versioning", {"VersioningConfiguration": {"Status": "Suspended"}}),
    ),
    "BucketEncryption": (
        "put_bucket_encryption",
        "ServerSideEncryptionConfiguration",
        _encryption,
        ("delete_bucket_encryption", {}),
    ),
    "PublicAccessBlockConfiguration": (
        "put_public_access_block",
        "PublicAccessBlockConfiguration",
        _same,
        ("delete_public_access_block", {}),
    ),
    "OwnershipControls": (
        "put_bucket_ownership_controls",
        "OwnershipControls",
        _same,
        ("delete_bucket_ownership_controls", {}),
    ),
    "LifecycleConfiguration": (
        "put_bucket_lifecycle_configuration",
        "LifecycleConfiguration",
        _lifecycle,
        ("delete_bucket_lifecycle", {}),
    ),
    "NotificationConfiguration": (
        "put_bucket_notification_configuration",
        "NotificationConfiguration",
        _notification,
        ("put_bucket_notification_configuration", {"NotificationConfiguration": {}}),
    ),
    "CorsConfiguration": ("put_bucket_cors", "CORSConfiguration", _cors, ("delete_bucket_cors", {})),
    "Tags": ("put_bucket_tagging", "Tagging", lambda tags: {"TagSet": tags}, ("delete_bucket_tagging", {})),
}
"""Property -> (operation, its argument, how to build it, (operation that takes it away, arguments))."""


class BucketPolicy(ResourceType):
    """A bucket's policy."""

    type = "AWS::S3::BucketPolicy"
    applied = words("Bucket PolicyDocument")
    required = applied
    create_only = words("Bucket")

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the policy."""
        site.call("s3", "put_bucket_policy", Bucket=properties["Bucket"], Policy=properties["PolicyDocument"])
        return Created(str(properties["Bucket"]))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the new policy over the old."""
        return self.create(site, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Take the policy away."""
        site.remove("s3", "delete_bucket_policy", Bucket=physical_id)


TYPES = (Bucket, BucketPolicy)
