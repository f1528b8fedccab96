"""AWS::ECR: image repositories."""

from __future__ import annotations

import json

from local.cloudformation.resources.base import (
    Created,
    Properties,
    ResourceType,
    Site,
    is_true,
    lower_camel,
    pick,
    words,
)


class Repository(ResourceType):
    """A repository with its life cycle and access policies."""

    type = "AWS::ECR::Repository"
    applied = words(
        "RepositoryName ImageScanningConfiguration ImageTagMutability EncryptionConfiguration "
        "EmptyOnDelete LifecyclePolicy RepositoryPolicyText Tags"
    )
    create_only = words("RepositoryName EncryptionConfiguration")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the repository."""
        name = str(properties.get("RepositoryName") or site.name(256).lower())
        request = lower_camel(pick(properties, ("ImageScanningConfiguration", "ImageTagMutability")))
        encryption = lower_camel(pick(properties, ("EncryptionConfiguration",)))
        tags = properties.get("Tags", [])
        site.call("ecr", "create_repository", repositoryName=name, tags=tags, **request, **encryption)
        return self._policies(site, name, {}, properties)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Put the changed settings."""
        site.call(
            "ecr",
            "put_image_tag_mutability",
            repositoryName=physical_id,
            imageTagMutability=new.get("ImageTagMutability", "MUTABLE"),
        )
        site.call(
            "ecr",
            "put_image_scanning_configuration",
            repositoryName=physical_id,
            imageScanningConfiguration=lower_camel(
                new.get("ImageScanningConfiguration", {"ScanOnPush": False})
            ),
        )
        return self._policies(site, physical_id, old, new)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the repository; with images only if EmptyOnDelete says so."""
        force = is_true(properties.get("EmptyOnDelete", False))
        site.remove("ecr", "delete_repository", repositoryName=physical_id, force=force)

    def _policies(self, site: Site, name: str, old: Properties, new: Properties) -> Created:
        rules = new.get("LifecyclePolicy", {}).get("LifecyclePolicyText")
        if rules:
            site.call("ecr", "put_lifecycle_policy", repositoryName=name, lifecyclePolicyText=rules)
        elif "LifecyclePolicy" in old:
            site.remove("ecr", "delete_lifecycle_policy", repositoryName=name)
        if "RepositoryPolicyText" in new:
            value = new["RepositoryPolicyText"]
            text = value if isinstance(value, str) else json.dumps(value)
            site.call("ecr", "set_repository_policy", repositoryName=name, policyText=text)
        elif "RepositoryPolicyText" in old:
            site.remove("ecr", "delete_repository_policy", repositoryName=name)
        described = site.call("ecr", "describe_repositories", repositoryNames=[name])["repositories"][0]
        return Created(name, {"Arn": described["repositoryArn"], "RepositoryUri": described["repositoryUri"]})


TYPES = (Repository,)
