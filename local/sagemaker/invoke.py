"""InvokeEndpoint: a request passed through to a container, measured and captured."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from local.sagemaker.endpoints import Endpoint
from local.sagemaker.fleets import Fleet, Variant
from local.sagemaker.serving import Answer, ContainerTimeoutError, ContainerUnavailableError
from local.sagemaker.state import SageMaker

log = logging.getLogger("local.sagemaker")

BODY_LIMIT = 25 * 1024 * 1024
"""Bytes; SageMaker raised its 6 MB to 25 MB in 2025."""

Response = tuple[int, dict[str, str], bytes]


def install(sagemaker: SageMaker) -> None:
    """Put the real InvokeEndpoint in place of moto's canned answers."""

    def invoke_endpoint(self: Any) -> Response:
        name = unquote(self.path).rstrip("/").split("/")[-2]
        status, headers, body = invoke(sagemaker, self.region, name, self.headers, self.raw_body)
        return status, {**headers, "status": str(status)}, body

    def refuse(self: Any) -> Response:
        message = "The embedded AWS does not implement asynchronous invocations."
        status, headers, body = _error(400, "UnsupportedOperation", {"Message": message})
        return status, {**headers, "status": str(status)}, body

    SageMakerRuntimeResponse.use_raw_body = True  # an image is not UTF-8
    SageMakerRuntimeResponse.invoke_endpoint = invoke_endpoint
    SageMakerRuntimeResponse.invoke_endpoint_async = refuse


def invoke(sagemaker: SageMaker, region: str, name: str, headers: Mapping[str, str], body: bytes) -> Response:
    """Answer one InvokeEndpoint call.

    Parameters
    ----------
    headers
        Of the caller's request.
    body
        Passed to the container as it is.
    """
    began = time.perf_counter()
    endpoint = sagemaker.region(region).held(Endpoint).get(name)
    if endpoint is None or not endpoint.serves:
        return _error(
            400,
            "ValidationError",
            {"Message": f"Endpoint {name} of account {sagemaker.aws.account_id} not found."},
        )
    if len(body) > BODY_LIMIT:
        return _error(
            413,
            "ValidationError",
            {"Message": f"Request {len(body)} bytes has exceeded the limit of {BODY_LIMIT} bytes."},
        )
    target = headers.get("X-Amzn-SageMaker-Target-Variant")
    chosen = endpoint.acquire(target)
    if chosen is None:
        return _error(
            400, "ValidationError", {"Message": f"Variant {target} of endpoint {name} does not exist."}
        )
    fleet, variant = chosen
    request_headers = _container_headers(headers)
    sent = time.perf_counter()
    try:
        answer = variant.container.invoke(request_headers, body)
        status = answer.status
    except ContainerUnavailableError as error:
        answer, status = _unavailable(error)
    finally:
        variant.container.release()
    received = time.perf_counter()
    _measure(sagemaker, endpoint, fleet, variant, status, sent - began, received - sent)
    if status >= 400:
        return _model_error(sagemaker, endpoint, variant, answer, status)
    custom = answer.headers.get("x-amzn-sagemaker-custom-attributes")
    if variant.capture is not None:
        variant.capture.record(
            (request_headers.get("Content-Type"), body),
            (answer.headers.get("content-type"), answer.body),
            headers.get("X-Amzn-SageMaker-Inference-Id"),
            request_headers.get("X-Amzn-SageMaker-Custom-Attributes"),
        )
    response_headers = {
        "Content-Type": answer.headers.get("content-type", "application/octet-stream"),
        "x-Amzn-Invoked-Production-Variant": variant.name,
    }
    if custom is not None:
        response_headers["X-Amzn-SageMaker-Custom-Attributes"] = custom
    return 200, response_headers, answer.body


def _container_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what SageMaker passes on to the container."""
    passed = {
        name: headers[name]
        for name in (
            "Content-Type",
            "Accept",
            "X-Amzn-SageMaker-Custom-Attributes",
            "X-Amzn-SageMaker-Inference-Id",
            "X-Amzn-SageMaker-Target-Variant",
        )
        if name in headers
    }
    # botocore sends no Content-Type of its own for a blob; SageMaker's default is this.
    passed.setdefault("Content-Type", "application/octet-stream")
    return passed


def _unavailable(error: ContainerUnavailableError) -> tuple[Answer, int]:
    if isinstance(error, ContainerTimeoutError):
        text = "Your invocation timed out while waiting for a response from container primary."
        return Answer(0, {}, text.encode()), 500
    return Answer(503, {}, f"The container is not available ({error}).".encode()), 503


def _measure(
    sagemaker: SageMaker,
    endpoint: Endpoint,
    fleet: Fleet,
    variant: Variant,
    status: int,
    overhead: float,
    latency: float,
) -> None:
    common = (("EndpointName", endpoint.name), ("VariantName", variant.name))
    sagemaker.metrics.add(
        endpoint.region,
        [common, (("EndpointConfigName", fleet.config_name), *common)],
        {
            "Invocations": 1.0,
            "Invocation4XXErrors": float(400 <= status < 500),
            "Invocation5XXErrors": float(status >= 500),
            "ModelLatency": round(latency * 1e6),
            "OverheadLatency": round(overhead * 1e6),
        },
    )


def _model_error(
    sagemaker: SageMaker, endpoint: Endpoint, variant: Variant, answer: Answer, status: int
) -> Response:
    text = answer.body.decode("utf-8", "replace")
    kind = "client" if status < 500 else "server"
    console = (
        f"https://{endpoint.region}.console.aws.amazon.com/cloudwatch/home?region={endpoint.region}"
        f"#logEventViewer:group=/aws/sagemaker/Endpoints/{endpoint.name}"
    )
    return _error(
        424,
        "ModelError",
        {
            "Message": f'Received {kind} error ({answer.status}) from primary with message "{text[:1024]}". '
            f"See {console} in account {sagemaker.aws.account_id} for more information.",
            "OriginalMessage": text,
            "OriginalStatusCode": answer.status,
            "LogStreamArn": variant.container.log.arn,
        },
    )


def _error(status: int, kind: str, body: dict[str, Any]) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-errortype": kind}
    return status, headers, json.dumps(body).encode()
