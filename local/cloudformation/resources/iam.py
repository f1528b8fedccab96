"""AWS::IAM: roles and policies. The embedded AWS stores them and enforces none."""

from __future__ import annotations

import json
from typing import Any

from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, words


class Role(ResourceType):
    """A role with inline and attached policies."""

    type = "AWS::IAM::Role"
    applied = words(
        "RoleName AssumeRolePolicyDocument Description ManagedPolicyArns MaxSessionDuration Path "
        "PermissionsBoundary Policies Tags"
    )
    required = words("AssumeRolePolicyDocument")
    create_only = words("RoleName Path")
    needs_named_iam = "RoleName"

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the role, then its policies."""
        name = str(properties.get("RoleName") or site.name(64))
        skipped = ("RoleName", "ManagedPolicyArns", "Policies")
        request = {key: value for key, value in properties.items() if key not in skipped}
        role = site.call("iam", "create_role", RoleName=name, **request)["Role"]
        try:
            self._policies(site, name, {}, properties)
        except Exception:
            self.delete(site, name, {})
            raise
        return Created(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Bring the trust policy, description, boundary, tags and policies to the new state."""
        name = physical_id
        site.call(
            "iam", "update_assume_role_policy", RoleName=name, PolicyDocument=new["AssumeRolePolicyDocument"]
        )
        site.call(
            "iam",
            "update_role",
            RoleName=name,
            Description=new.get("Description", ""),
            MaxSessionDuration=new.get("MaxSessionDuration", 3600),
        )
        if "PermissionsBoundary" in new:
            boundary = new["PermissionsBoundary"]
            site.call("iam", "put_role_permissions_boundary", RoleName=name, PermissionsBoundary=boundary)
        elif "PermissionsBoundary" in old:
            site.call("iam", "delete_role_permissions_boundary", RoleName=name)
        if new.get("Tags"):
            site.call("iam", "tag_role", RoleName=name, Tags=new["Tags"])
        kept = {tag["Key"] for tag in new.get("Tags", [])}
        gone = [tag["Key"] for tag in old.get("Tags", []) if tag["Key"] not in kept]
        if gone:
            site.call("iam", "untag_role", RoleName=name, TagKeys=gone)
        self._policies(site, name, old, new)
        role = site.call("iam", "get_role", RoleName=name)["Role"]
        return Created(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Detach and delete every policy, then the role."""
        iam = site.client("iam")
        try:
            attached = iam.list_attached_role_policies(RoleName=physical_id)["AttachedPolicies"]
            inline = iam.list_role_policies(RoleName=physical_id)["PolicyNames"]
        except iam.exceptions.NoSuchEntityException:
            return
        for policy in attached:
            site.remove("iam", "detach_role_policy", RoleName=physical_id, PolicyArn=policy["PolicyArn"])
        for name in inline:
            site.remove("iam", "delete_role_policy", RoleName=physical_id, PolicyName=name)
        site.remove("iam", "delete_role", RoleName=physical_id)

    def _policies(self, site: Site, name: str, old: Properties, new: Properties) -> None:
        before, after = set(old.get("ManagedPolicyArns", [])), set(new.get("ManagedPolicyArns", []))
        for arn in sorted(before - after):
            site.remove("iam", "detach_role_policy", RoleName=name, PolicyArn=arn)
        for arn in sorted(after - before):
            site.call("iam", "attach_role_policy", RoleName=name, PolicyArn=arn)
        documents = {str(item["PolicyName"]): item["PolicyDocument"] for item in new.get("Policies", [])}
        for item in old.get("Policies", []):
            if item["PolicyName"] not in documents:
                site.remove("iam", "delete_role_policy", RoleName=name, PolicyName=item["PolicyName"])
        for policy, document in documents.items():
            _put_inline(site, "role", "RoleName", name, policy, document)


def _put_inline(site: Site, kind: str, key: str, name: str, policy: str, document: Any) -> None:
    site.call(
        "iam",
        f"put_{kind}_policy",
        # IAM takes a policy without a version (SAM's policy templates have none); moto does not.
        **{key: name, "PolicyName": policy, "PolicyDocument": {"Version": "2012-10-17", **document}},
    )


_HOLDERS = {"Roles": ("role", "RoleName"), "Users": ("user", "UserName"), "Groups": ("group", "GroupName")}


class Policy(ResourceType):
    """An inline policy put on roles, users and groups."""

    type = "AWS::IAM::Policy"
    applied = words("PolicyName PolicyDocument Roles Users Groups")
    required = words("PolicyName PolicyDocument")
    create_only = words("PolicyName")
    needs_named_iam = ""

    def create(self, site: Site, properties: Properties) -> Created:
        """Put the policy on every holder."""
        for plural, (kind, key) in _HOLDERS.items():
            for name in properties.get(plural, []):
                _put_inline(site, kind, key, name, properties["PolicyName"], properties["PolicyDocument"])
        identity = site.name()
        return Created(identity, {"Id": identity})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Take it from holders that left, put it on the others."""
        left = {
            plural: [name for name in old.get(plural, []) if name not in new.get(plural, [])]
            for plural in _HOLDERS
        }
        self.delete(site, physical_id, {"PolicyName": old["PolicyName"], **left})
        self.create(site, new)
        return Created(physical_id, {"Id": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Take the policy from every holder that still exists."""
        for plural, (kind, key) in _HOLDERS.items():
            for name in properties.get(plural, []):
                site.remove(
                    "iam", f"delete_{kind}_policy", **{key: name, "PolicyName": properties["PolicyName"]}
                )


class ManagedPolicy(ResourceType):
    """A customer managed policy and its attachments."""

    type = "AWS::IAM::ManagedPolicy"
    applied = words("ManagedPolicyName PolicyDocument Description Path Roles Users Groups")
    required = words("PolicyDocument")
    create_only = words("ManagedPolicyName Description Path")
    needs_named_iam = "ManagedPolicyName"

    def create(self, site: Site, properties: Properties) -> Created:
        """Create and attach it."""
        request = {
            key: properties[key] for key in ("PolicyDocument", "Description", "Path") if key in properties
        }
        name = str(properties.get("ManagedPolicyName") or site.name(128))
        arn = str(site.call("iam", "create_policy", PolicyName=name, **request)["Policy"]["Arn"])
        self._attach(site, arn, {}, properties)
        return Created(arn, {"PolicyArn": arn})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Make a new default version; IAM keeps five, so the previous one goes."""
        if new["PolicyDocument"] != old["PolicyDocument"]:
            versions = site.call("iam", "list_policy_versions", PolicyArn=physical_id)["Versions"]
            site.call(
                "iam",
                "create_policy_version",
                PolicyArn=physical_id,
                PolicyDocument=json.dumps(new["PolicyDocument"]),
                SetAsDefault=True,
            )
            for version in versions:
                site.remove(
                    "iam", "delete_policy_version", PolicyArn=physical_id, VersionId=version["VersionId"]
                )
        self._attach(site, physical_id, old, new)
        return Created(physical_id, {"PolicyArn": physical_id})

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Detach and delete it."""
        self._attach(site, physical_id, properties, {})
        site.remove("iam", "delete_policy", PolicyArn=physical_id)

    def _attach(self, site: Site, arn: str, old: Properties, new: Properties) -> None:
        for plural, (kind, key) in _HOLDERS.items():
            before, after = set(old.get(plural, [])), set(new.get(plural, []))
            for name in sorted(before - after):
                site.remove("iam", f"detach_{kind}_policy", **{key: name, "PolicyArn": arn})
            for name in sorted(after - before):
                site.call("iam", f"attach_{kind}_policy", **{key: name, "PolicyArn": arn})


TYPES = (Role, Policy, ManagedPolicy)
