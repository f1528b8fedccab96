"""Where the embedded Lambda enters moto's."""

from __future__ import annotations

import base64
import functools
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from local.lambda_runtime import destinations
from local.lambda_runtime.asynchronous import AsynchronousInvoker, QueuedEvent
from local.lambda_runtime.errors import InvalidParameterError, NotEmulatedError, ResourceNotFoundError
from local.lambda_runtime.service import ASYNC_LIMIT, SYNC_LIMIT, LambdaService, check_runtime

log = logging.getLogger("local.lambda")

RESERVED_KEYS = re.compile(
    r"_HANDLER|_X_AMZN_TRACE_ID|AWS_DEFAULT_REGION|AWS_REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_FUNCTION_\w+"
    r"|AWS_LAMBDA_LOG_(GROUP|STREAM)_NAME|AWS_ACCESS_KEY(_ID)?|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN"
    r"|AWS_LAMBDA_RUNTIME_API|AWS_LAMBDA_INITIALIZATION_TYPE|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR"
)
NOT_EMULATED = ("FileSystemConfigs", "CodeSigningConfigArn", "ImageConfig")
EXTRA_ATTRIBUTES = {
    "LoggingConfig": "logging_config",
    "DeadLetterConfig": "dead_letter_config",
}
"""Properties of a function that moto forgets: name in the API → attribute on moto's record."""
UPDATED_BY_MOTO_NOT = {"TracingConfig": "tracing_config", "KMSKeyArn": "kms_key_arn"}


class InvokeApi:
    """The Invoke operation, in place of moto's."""

    def __init__(self, service: LambdaService, asynchronous: AsynchronousInvoker) -> None:
        self._service = service
        self._asynchronous = asynchronous

    def invoke(
        self, backend: Any, name: str, qualifier: str | None, payload: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer."""
        function = backend.get_function(name, qualifier)
        qualifier = _qualifier_of(name) or qualifier
        arn = function.function_arn.split(":")
        invoked_arn = ":".join([*arn[:7], *([qualifier] if qualifier else [])])
        kind = headers.get("X-Amz-Invocation-Type") or "RequestResponse"
        request_id = str(uuid.uuid4())
        answer = {"x-amzn-requestid": request_id, "content-type": "application/json"}
        self._service.check_invocable(function)
        if kind == "DryRun":
            return 204, answer, b""
        if kind == "Event":
            body = self._service.validate_payload(payload, ASYNC_LIMIT)
            kept = {
                name: headers[name] for name in ("X-Amzn-Trace-Id", "X-Amz-Client-Context") if name in headers
            }
            self._asynchronous.enqueue(
                QueuedEvent(
                    account_id=backend.account_id,
                    region=backend.region_name,
                    function_name=function.function_name,
                    qualifier=qualifier,
                    invoked_arn=invoked_arn,
                    request_id=request_id,
                    payload=body,
                    headers=kept,
                )
            )
            return 202, answer, b""
        if kind != "RequestResponse":
            raise InvalidParameterError(f"Invocation type {kind} is none of RequestResponse, Event, DryRun.")
        body = self._service.validate_payload(payload, SYNC_LIMIT)
        outcome = self._service.invoke(
            function, body, request_id=request_id, headers=headers, invoked_arn=invoked_arn
        )
        answer["X-Amz-Executed-Version"] = outcome.executed_version
        if outcome.failed:
            answer["X-Amz-Function-Error"] = "Unhandled"
        if headers.get("X-Amz-Log-Type") == "Tail":
            answer["X-Amz-Log-Result"] = base64.b64encode(outcome.log_tail).decode()
        return 200, answer, outcome.payload


def _qualifier_of(name_or_arn: str) -> str | None:
    parts = name_or_arn.split(":")
    if parts[0] == "arn":
        return parts[7] if len(parts) > 7 else None
    return parts[-1] if len(parts) in (2, 3) and parts[0] != "function" else None


def install(service: LambdaService, asynchronous: AsynchronousInvoker) -> None:
    """Replace moto's invocation and validate what it accepts blindly."""
    from moto.awslambda.models import LambdaBackend, LambdaFunction
    from moto.awslambda.responses import LambdaResponse
    from moto.core import responses
    from moto.utilities.aws_headers import gen_amz_crc32

    api = InvokeApi(service, asynchronous)

    def respond(self: Any) -> tuple[int, dict[str, str], bytes]:
        name = unquote(self.path.rsplit("/", 2)[-2])
        qualifier = (self.querystring.get("Qualifier") or [None])[0]
        body = self.body.encode() if isinstance(self.body, str) else self.body or b""
        status, headers, payload = api.invoke(self.backend, name, qualifier, body, self.headers)
        gen_amz_crc32(payload, headers)
        return status, headers | {"status": str(status)}, payload

    def invoke_directly(
        self: Any, body: str | bytes, request_headers: Mapping[str, str], response_headers: dict[str, str]
    ) -> bytes:
        """Serve the parts of moto that invoke a function without HTTP."""
        backend = service.backend(self.account_id, self.region)
        data = body.encode() if isinstance(body, str) else body or b""
        arn = self.function_arn
        _, headers, payload = api.invoke(backend, arn, None, data, request_headers)
        response_headers.update({name.lower(): value for name, value in headers.items()})
        return payload

    def invoke_through_backend(
        self: Any,
        function_name: str,
        qualifier: str | None,
        body: str | bytes,
        headers: Mapping[str, str],
        response_headers: dict[str, str],
    ) -> bytes:
        data = body.encode() if isinstance(body, str) else body or b""
        _, answer, payload = api.invoke(self, function_name, qualifier, data, headers)
        response_headers.update({name.lower(): value for name, value in answer.items()})
        return payload

    new_request_id = responses.gen_amzn_requestid_long

    def request_id_header(headers: dict[str, str] | None = None) -> str:
        """Keep the request id of an invocation: it is the one that the function's log and errors name."""
        if headers and "x-amzn-requestid" in headers:
            return headers["x-amzn-requestid"]
        return str(new_request_id(headers))

    responses.gen_amzn_requestid_long = request_id_header

    def refuse_invoke_async(_: Any) -> None:
        raise NotEmulatedError("InvokeAsync, which AWS has deprecated: use Invoke with the type Event")

    LambdaResponse.invoke = respond
    LambdaResponse.invoke_async = refuse_invoke_async
    LambdaFunction.invoke = invoke_directly
    LambdaBackend.invoke = invoke_through_backend
    _extend_functions(service, LambdaFunction, LambdaBackend)
    _refuse_what_is_missing(LambdaBackend)


def _extend_functions(service: LambdaService, function_class: Any, backend_class: Any) -> None:
    """Keep the properties that moto forgets; retire workers when a function changes."""

    def initialise(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        spec = kwargs.get("spec") or args[1]
        _validate(spec)
        original(self, *args, **kwargs)
        for name, attribute in EXTRA_ATTRIBUTES.items():
            setattr(self, attribute, spec.get(name))
        service.check_invocable(self)
        service.aws.submit(service.prepare, self)

    def update(original: Callable[..., Any], self: Any, changes: dict[str, Any]) -> Any:
        _validate(changes)
        if "Runtime" in changes:
            check_runtime(changes["Runtime"])
        for name, attribute in (EXTRA_ATTRIBUTES | UPDATED_BY_MOTO_NOT).items():
            if name in changes:
                setattr(self, attribute, changes[name])
        if "EphemeralStorage" in changes:
            self.ephemeral_storage = changes["EphemeralStorage"]["Size"]
        answer = original(self, changes)
        service.pool.retire(self.function_name, self.region)
        return answer | _extra(self)

    def update_code(original: Callable[..., Any], self: Any, changes: dict[str, Any]) -> Any:
        if changes.get("Architectures"):
            self.architectures = changes["Architectures"]
        before = self.code_bytes, self.code_size, self.code_sha_256, self.code_digest
        answer = original(self, changes)
        try:
            service.check_invocable(self)
        except InvalidParameterError:
            self.code_bytes, self.code_size, self.code_sha_256, self.code_digest = before
            raise
        service.pool.retire(self.function_name, self.region)
        service.aws.submit(service.prepare, self)
        return answer

    def configuration(
        original: Callable[..., dict[str, Any]], self: Any, on_create: bool = False
    ) -> dict[str, Any]:
        return original(self, on_create) | _extra(self)

    def delete(original: Callable[..., None], self: Any, name: str, qualifier: str | None = None) -> None:
        function = self.get_function(name, qualifier)
        original(self, name, qualifier)
        service.pool.retire(function.function_name, self.region_name)

    wrap(function_class, "__init__", initialise)
    wrap(function_class, "update_configuration", update)
    wrap(function_class, "update_function_code", update_code)
    wrap(function_class, "get_configuration", configuration)
    wrap(backend_class, "delete_function", delete)


def _extra(function: Any) -> dict[str, Any]:
    logging_config = getattr(function, "logging_config", None) or {}
    extra: dict[str, Any] = {
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": function.logs_group_name} | logging_config
    }
    if dead_letter := getattr(function, "dead_letter_config", None):
        extra["DeadLetterConfig"] = dead_letter
    return extra


def _validate(spec: dict[str, Any]) -> None:
    for name in NOT_EMULATED:
        if spec.get(name):
            raise NotEmulatedError(f"the function property {name}")
    if (spec.get("SnapStart") or {}).get("ApplyOn", "None") != "None":
        raise NotEmulatedError("SnapStart")
    for name, least, most in (("Timeout", 1, 900), ("MemorySize", 128, 10240)):
        value = spec.get(name)
        if value is not None and not least <= int(value) <= most:
            raise InvalidParameterError(
                f"1 validation error detected: Value '{value}' at '{name[:1].lower()}{name[1:]}' failed to "
                f"satisfy constraint: Member must have value between {least} and {most}"
            )
    keys = sorted(
        key for key in (spec.get("Environment") or {}).get("Variables") or {} if RESERVED_KEYS.fullmatch(key)
    )
    if keys:
        raise InvalidParameterError(
            "Lambda was unable to configure your environment variables because the environment variables "
            "you have provided contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(keys)}"
        )
    target = (spec.get("DeadLetterConfig") or {}).get("TargetArn")
    if target and target.split(":")[2:3] not in (["sqs"], ["sns"]):
        raise InvalidParameterError(
            f"The dead-letter target {target} is neither an SQS queue nor an SNS topic."
        )


def _refuse_what_is_missing(backend_class: Any) -> None:
    def no_urls(*_: Any, **__: Any) -> None:
        raise NotEmulatedError("function URLs")

    for name in ("create_function_url_config", "update_function_url_config"):
        setattr(backend_class, name, no_urls)

    def put_config(
        original: Callable[..., Any], self: Any, function_name: str, config: dict[str, Any]
    ) -> Any:
        destinations.check(config.get("DestinationConfig") or {})
        function = self.get_function(function_name)
        before = list(function.event_invoke_config)
        answer = original(self, function_name, config)
        function.event_invoke_config[:] = function.event_invoke_config[len(before) :]
        return answer

    def update_config(
        original: Callable[..., Any], self: Any, function_name: str, config: dict[str, Any]
    ) -> Any:
        function = self.get_function(function_name)
        if not function.event_invoke_config:
            raise ResourceNotFoundError(
                f"The function {function.function_arn} doesn't have an EventInvokeConfig"
            )
        merged = function.event_invoke_config[-1].config | config
        return self.put_function_event_invoke_config(function_name, merged)

    wrap(backend_class, "put_function_event_invoke_config", put_config)
    wrap(backend_class, "update_function_event_invoke_config", update_config)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``around(original, self, …)``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(owner, name, method)
