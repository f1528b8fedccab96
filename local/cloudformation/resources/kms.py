"""AWS::KMS: keys and aliases."""

from __future__ import annotations

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, is_true, pick, words


class Key(ResourceType):
    """A key."""

    type = "AWS::KMS::Key"
    applied = words(
        "Description EnableKeyRotation Enabled KeyPolicy KeySpec KeyUsage MultiRegion "
        "PendingWindowInDays Tags"
    )
    create_only = words("KeySpec KeyUsage MultiRegion")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the key."""
        request = pick(properties, ("Description", "KeySpec", "KeyUsage", "MultiRegion"))
        if "KeyPolicy" in properties:
            request["Policy"] = properties["KeyPolicy"]
        tags = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.get("Tags", [])]
        identity = str(site.call("kms", "create_key", Tags=tags, **request)["KeyMetadata"]["KeyId"])
        return self._settings(site, identity, {}, properties)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the policy, description and switches."""
        if "KeyPolicy" in new:
            site.call(
                "kms", "put_key_policy", KeyId=physical_id, PolicyName="default", Policy=new["KeyPolicy"]
            )
        site.call("kms", "update_key_description", KeyId=physical_id, Description=new.get("Description", ""))
        return self._settings(site, physical_id, old, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Schedule the key's deletion, as CloudFormation does."""
        days = properties.get("PendingWindowInDays", 30)
        site.remove("kms", "schedule_key_deletion", KeyId=physical_id, PendingWindowInDays=days)

    def _settings(self, site: Site, identity: str, old: Properties, new: Properties) -> Created:
        for key, on, off, default in (
            ("EnableKeyRotation", "enable_key_rotation", "disable_key_rotation", False),
            ("Enabled", "enable_key", "disable_key", True),
        ):
            wanted = is_true(new.get(key, default))
            if wanted != is_true(old.get(key, default)):
                site.call("kms", on if wanted else off, KeyId=identity)
        return Created(identity, {"KeyId": identity, "Arn": site.arn("kms", f"key/{identity}")})


class Alias(ResourceType):
    """A name for a key."""

    type = "AWS::KMS::Alias"
    applied = words("AliasName TargetKeyId")
    required = applied
    create_only = words("AliasName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the alias."""
        site.call("kms", "create_alias", **properties)
        return Created(str(properties["AliasName"]))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Point the alias at another key."""
        site.call("kms", "update_alias", **new)
        return Created(physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the alias."""
        site.remove("kms", "delete_alias", AliasName=physical_id)


TYPES = (Key, Alias)
