"""Models and endpoint configurations: records that endpoints are made from."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from local.sagemaker.errors import UnsupportedOperation, ValidationError
from local.sagemaker.operations import Call, operation, page
from local.sagemaker.registry import package_of
from local.sagemaker.state import Params, Record, RegionState, SageMaker, now, tags_of


@dataclass(frozen=True)
class ContainerDefinition:
    """What a fleet starts: image, model data, environment."""

    image: str
    model_data: str | None
    environment: dict[str, str]
    role_arn: str
    isolated: bool = False


@operation("CreateModel")
def create_model(call: Call) -> Params:
    """CreateModel."""
    return {"ModelArn": create(call.sagemaker, call.region, call.params).arn}


def create(sagemaker: SageMaker, region: str, request: Params) -> Record:
    """Create a model.

    Raises
    ------
    ValidationError, UnsupportedOperation
        The name is taken, the containers are wrong, or there are several.
    """
    state = sagemaker.region(region)
    name = request["ModelName"]
    containers = request.get("Containers") or []
    primary = request.get("PrimaryContainer")
    if bool(containers) == bool(primary):
        raise ValidationError("Give either PrimaryContainer or Containers.")
    if len(containers) > 1:
        raise UnsupportedOperation(
            "Containers has more than one entry: the embedded AWS has no inference pipelines."
        )
    container = primary or containers[0]
    arn = sagemaker.arn(region, f"model/{name}")
    with state.lock:
        if name in state.models:
            raise ValidationError(f"Cannot create already existing model {arn!r}.")
        if container.get("ModelPackageName"):
            package_of(state, container["ModelPackageName"])
        elif not container.get("Image"):
            raise ValidationError("The container must have an Image or a ModelPackageName.")
        if container.get("ModelDataSource"):
            raise UnsupportedOperation(
                "ModelDataSource is not supported by the embedded AWS: use ModelDataUrl."
            )
        keys = ("ModelName", "PrimaryContainer", "Containers", "ExecutionRoleArn", "VpcConfig")
        body: Params = {
            **{key: copy.deepcopy(request[key]) for key in keys if request.get(key) is not None},
            "ModelArn": arn,
            "CreationTime": now(),
            "EnableNetworkIsolation": bool(request.get("EnableNetworkIsolation")),
        }
        state.models[name] = Record(arn, body, tags_of(request))
        return state.models[name]


def container_of(state: RegionState, model_name: str) -> ContainerDefinition:
    """Return what to start for a model, with a model package resolved.

    Raises
    ------
    ValidationError
        The model or its package does not exist.
    """
    body = _model(state, model_name).body
    container = body.get("PrimaryContainer") or body["Containers"][0]
    environment = dict(container.get("Environment") or {})
    if container.get("ModelPackageName"):
        package = package_of(state, container["ModelPackageName"]).body
        inner = (package.get("InferenceSpecification") or {}).get("Containers") or [{}]
        environment = {**(inner[0].get("Environment") or {}), **environment}
        container = inner[0]
    return ContainerDefinition(
        image=container.get("Image", ""),
        model_data=container.get("ModelDataUrl"),
        environment=environment,
        role_arn=body.get("ExecutionRoleArn", ""),
        isolated=bool(body.get("EnableNetworkIsolation")),
    )


@operation("DescribeModel")
def describe_model(call: Call) -> Params:
    """DescribeModel."""
    return _model(call.state, call["ModelName"]).body


@operation("DeleteModel")
def delete_model(call: Call) -> Params:
    """DeleteModel; endpoints that run it go on."""
    with call.state.lock:
        _model(call.state, call["ModelName"])
        del call.state.models[call["ModelName"]]
    return {}


@operation("ListModels")
def list_models(call: Call) -> Params:
    """ListModels."""
    return page(
        call,
        [record.body for record in list(call.state.models.values())],
        result="Models",
        sort={"Name": lambda item: item["ModelName"], "CreationTime": lambda item: item["CreationTime"]},
        default_sort="CreationTime",
        name_of=lambda item: str(item["ModelName"]),
    )


def _model(state: RegionState, name: str) -> Record:
    model = state.models.get(name)
    if model is None:
        raise ValidationError(f'Could not find model "{name}".')
    return model


@operation("CreateEndpointConfig")
def create_endpoint_config(call: Call) -> Params:
    """CreateEndpointConfig."""
    name = call["EndpointConfigName"]
    arn = call.sagemaker.arn(call.region, f"endpoint-config/{name}")
    for unsupported in ("AsyncInferenceConfig", "ShadowProductionVariants", "ExplainerConfig"):
        if call.get(unsupported):
            raise UnsupportedOperation(f"{unsupported} is not supported by the embedded AWS.")
    names: set[str] = set()
    for index, variant in enumerate(call["ProductionVariants"]):
        where = f"ProductionVariants[{index}]"
        if variant["VariantName"] in names:
            raise ValidationError(f"{where}.VariantName {variant['VariantName']!r} is used twice.")
        names.add(variant["VariantName"])
        if variant.get("ServerlessConfig"):
            raise UnsupportedOperation(f"{where}.ServerlessConfig is not supported by the embedded AWS.")
        if not variant.get("ModelName"):
            raise UnsupportedOperation(f"{where} needs a ModelName on the embedded AWS.")
        if not variant.get("InstanceType") or not variant.get("InitialInstanceCount"):
            raise ValidationError(f"{where} needs InstanceType and InitialInstanceCount.")
        _model(call.state, variant["ModelName"])
    capture = call.get("DataCaptureConfig")
    if capture and not str(capture["DestinationS3Uri"]).startswith("s3://"):
        raise ValidationError(
            f"DataCaptureConfig.DestinationS3Uri is no S3 URI: {capture['DestinationS3Uri']!r}"
        )
    with call.state.lock:
        if name in call.state.endpoint_configs:
            raise ValidationError(f"Cannot create already existing endpoint configuration {arn!r}.")
        keys = (
            "EndpointConfigName",
            "ProductionVariants",
            "DataCaptureConfig",
            "KmsKeyId",
            "ExecutionRoleArn",
        )
        body: Params = {
            **{key: copy.deepcopy(call.params[key]) for key in keys if call.params.get(key) is not None},
            "EndpointConfigArn": arn,
            "CreationTime": now(),
        }
        call.state.endpoint_configs[name] = Record(arn, body, tags_of(call.params))
    return {"EndpointConfigArn": arn}


@operation("DescribeEndpointConfig")
def describe_endpoint_config(call: Call) -> Params:
    """DescribeEndpointConfig."""
    return endpoint_config(call.state, call["EndpointConfigName"]).body


@operation("DeleteEndpointConfig")
def delete_endpoint_config(call: Call) -> Params:
    """DeleteEndpointConfig."""
    with call.state.lock:
        endpoint_config(call.state, call["EndpointConfigName"])
        del call.state.endpoint_configs[call["EndpointConfigName"]]
    return {}


@operation("ListEndpointConfigs")
def list_endpoint_configs(call: Call) -> Params:
    """ListEndpointConfigs."""
    return page(
        call,
        [record.body for record in list(call.state.endpoint_configs.values())],
        result="EndpointConfigs",
        sort={
            "Name": lambda item: item["EndpointConfigName"],
            "CreationTime": lambda item: item["CreationTime"],
        },
        default_sort="CreationTime",
        name_of=lambda item: str(item["EndpointConfigName"]),
    )


def endpoint_config(state: RegionState, name: str) -> Record:
    """Return an endpoint configuration.

    Raises
    ------
    ValidationError
        It does not exist.
    """
    record = state.endpoint_configs.get(name)
    if record is None:
        raise ValidationError(f'Could not find endpoint configuration "{name}".')
    return record
