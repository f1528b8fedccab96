"""AWS::SageMaker: model package groups, pipelines, models, endpoint configurations, endpoints."""

from __future__ import annotations

import json
import time
from typing import ClassVar

from local.cloudformation.errors import ResourceError
from local.cloudformation.resources.base import Created, Properties, ResourceType, Site, pick, without, words


class ModelPackageGroup(ResourceType):
    """A group of model versions: the registry of one model."""

    type = "AWS::SageMaker::ModelPackageGroup"
    applied = words("ModelPackageGroupName ModelPackageGroupDescription Tags")
    required = words("ModelPackageGroupName")
    create_only = words("ModelPackageGroupName ModelPackageGroupDescription")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the group."""
        arn = str(site.call("sagemaker", "create_model_package_group", **properties)["ModelPackageGroupArn"])
        return Created(arn, {"ModelPackageGroupArn": arn, "ModelPackageGroupStatus": "Completed"})

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the tags."""
        site.call("sagemaker", "add_tags", ResourceArn=physical_id, Tags=new.get("Tags", []))
        return Created(
            physical_id, {"ModelPackageGroupArn": physical_id, "ModelPackageGroupStatus": "Completed"}
        )

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the group; AWS refuses while it holds versions."""
        name = physical_id.rsplit("/", 1)[1]
        site.remove("sagemaker", "delete_model_package_group", ModelPackageGroupName=name)


class Pipeline(ResourceType):
    """A pipeline with its definition, inline or in S3."""

    type = "AWS::SageMaker::Pipeline"
    applied = words(
        "PipelineName PipelineDisplayName PipelineDescription PipelineDefinition "
        "ParallelismConfiguration RoleArn Tags"
    )
    required = words("PipelineName PipelineDefinition RoleArn")
    create_only = words("PipelineName")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the pipeline."""
        request = self._request(site, properties)
        # Unique for this stack's resource, as the API demands at least 32 characters.
        token = f"{site.stack_id.rsplit('/', 1)[1]}-{site.logical_id}"[:128]
        site.call("sagemaker", "create_pipeline", ClientRequestToken=token, **request)
        return Created(str(properties["PipelineName"]))

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update the pipeline."""
        site.call("sagemaker", "update_pipeline", **without(self._request(site, new), "Tags"))
        if new.get("Tags"):
            arn = site.arn("sagemaker", f"pipeline/{physical_id}")
            site.call("sagemaker", "add_tags", ResourceArn=arn, Tags=new["Tags"])
        return Created(physical_id)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the pipeline."""
        token = f"{site.stack_id.rsplit('/', 1)[1]}-delete"
        site.remove("sagemaker", "delete_pipeline", PipelineName=physical_id, ClientRequestToken=token)

    def _request(self, site: Site, properties: Properties) -> Properties:
        request = without(properties, "PipelineDefinition")
        definition = properties["PipelineDefinition"]
        if isinstance(definition, dict) and "PipelineDefinitionS3Location" in definition:
            place = definition["PipelineDefinitionS3Location"]
            where = {"Bucket": place["Bucket"], "Key": place["Key"]}
            if "Version" in place:
                where["VersionId"] = place["Version"]
            text = site.call("s3", "get_object", **where)["Body"].read().decode()
        elif isinstance(definition, dict) and "PipelineDefinitionBody" in definition:
            text = definition["PipelineDefinitionBody"]
        else:
            raise ResourceError(
                "PipelineDefinition needs PipelineDefinitionBody or PipelineDefinitionS3Location"
            )
        try:
            json.loads(text)
        except ValueError as error:
            raise ResourceError(f"PipelineDefinition is not valid JSON: {error}") from error
        return {**request, "PipelineDefinition": text}


class Model(ResourceType):
    """A model: container image and artefacts."""

    type = "AWS::SageMaker::Model"
    applied = words("ModelName PrimaryContainer Containers ExecutionRoleArn Tags")
    inert: ClassVar = {
        "EnableNetworkIsolation": "a local process has no network of its own to cut off",
        "VpcConfig": "there is no VPC on one machine",
    }
    create_only = words(
        "ModelName PrimaryContainer Containers ExecutionRoleArn EnableNetworkIsolation VpcConfig"
    )

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the model."""
        name = str(properties.get("ModelName") or site.name(63))
        arn = str(site.call("sagemaker", "create_model", **{**properties, "ModelName": name})["ModelArn"])
        return self._made(arn, name)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the tags."""
        site.call("sagemaker", "add_tags", ResourceArn=physical_id, Tags=new.get("Tags", []))
        return self._made(physical_id, physical_id.rsplit("/", 1)[1])

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the model."""
        site.remove("sagemaker", "delete_model", ModelName=physical_id.rsplit("/", 1)[1])

    def _made(self, arn: str, name: str) -> Created:
        return Created(arn, {"ModelArn": arn, "ModelName": name})


class EndpointConfig(ResourceType):
    """An endpoint configuration."""

    type = "AWS::SageMaker::EndpointConfig"
    applied = words("EndpointConfigName ProductionVariants DataCaptureConfig Tags")
    inert: ClassVar = {"KmsKeyId": "nothing is encrypted at rest on one machine"}
    required = words("ProductionVariants")
    create_only = words("EndpointConfigName ProductionVariants DataCaptureConfig KmsKeyId")

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the configuration."""
        name = str(properties.get("EndpointConfigName") or site.name(63))
        request = {**properties, "EndpointConfigName": name}
        arn = str(site.call("sagemaker", "create_endpoint_config", **request)["EndpointConfigArn"])
        return self._made(arn, name)

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Set the tags."""
        site.call("sagemaker", "add_tags", ResourceArn=physical_id, Tags=new.get("Tags", []))
        return self._made(physical_id, physical_id.rsplit("/", 1)[1])

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the configuration."""
        name = physical_id.rsplit("/", 1)[1]
        site.remove("sagemaker", "delete_endpoint_config", EndpointConfigName=name)

    def _made(self, arn: str, name: str) -> Created:
        return Created(arn, {"EndpointConfigArn": arn, "EndpointConfigName": name})


class Endpoint(ResourceType):
    """An endpoint; it is complete when it serves."""

    type = "AWS::SageMaker::Endpoint"
    applied = words(
        "EndpointName EndpointConfigName DeploymentConfig RetainAllVariantProperties "
        "ExcludeRetainedVariantProperties RetainDeploymentConfig Tags"
    )
    required = words("EndpointConfigName")
    create_only = words("EndpointName")
    settle_s = 600.0
    """How long an endpoint may take to serve, seconds."""

    def create(self, site: Site, properties: Properties) -> Created:
        """Create the endpoint and wait until it is in service."""
        name = str(properties.get("EndpointName") or site.name(63))
        request = pick(properties, ("EndpointConfigName", "Tags"))
        site.call("sagemaker", "create_endpoint", EndpointName=name, **request)
        try:
            return self._settled(site, name)
        except Exception:
            site.remove("sagemaker", "delete_endpoint", EndpointName=name)
            raise

    def update(self, site: Site, physical_id: str, old: Properties, new: Properties) -> Created:
        """Update the endpoint and wait until it is in service again."""
        name = physical_id.rsplit("/", 1)[1]
        request = without(new, "Tags", "EndpointName")
        site.call("sagemaker", "update_endpoint", EndpointName=name, **request)
        return self._settled(site, name)

    def delete(self, site: Site, physical_id: str, properties: Properties) -> None:
        """Delete the endpoint."""
        site.remove("sagemaker", "delete_endpoint", EndpointName=physical_id.rsplit("/", 1)[1])

    def _settled(self, site: Site, name: str) -> Created:
        deadline = time.monotonic() + self.settle_s
        while True:
            endpoint = site.call("sagemaker", "describe_endpoint", EndpointName=name)
            status = endpoint["EndpointStatus"]
            if status == "InService":
                arn = str(endpoint["EndpointArn"])
                return Created(arn, {"EndpointArn": arn, "EndpointName": name})
            if status in ("Failed", "OutOfService") or time.monotonic() > deadline:
                raise ResourceError(
                    f"the endpoint is {status}: {endpoint.get('FailureReason', 'no reason given')}"
                )
            if site.aws.stopping.wait(0.1):
                raise ResourceError("the embedded AWS is stopping")


TYPES = (ModelPackageGroup, Pipeline, Model, EndpointConfig, Endpoint)
