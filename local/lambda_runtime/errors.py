"""Errors of the Lambda API, as AWS words them."""

from __future__ import annotations

import json

from moto.awslambda.exceptions import LambdaClientError


class InvalidParameterError(LambdaClientError):
    """A parameter of the request is invalid."""

    code = 400

    def __init__(self, message: str) -> None:
        super().__init__("InvalidParameterValueException", message)


class NotEmulatedError(InvalidParameterError):
    """The request uses a part of Lambda that the embedded AWS lacks."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The embedded AWS does not emulate {what}. Remove it, or deploy to AWS.")


class ResourceNotFoundError(LambdaClientError):
    """The named resource does not exist."""

    code = 404

    def __init__(self, message: str) -> None:
        super().__init__("ResourceNotFoundException", message)


class ResourceConflictError(LambdaClientError):
    """The resource exists already."""

    code = 409

    def __init__(self, message: str) -> None:
        super().__init__("ResourceConflictException", message)


class InvalidRequestContentError(LambdaClientError):
    """The payload of an invocation is no JSON."""

    code = 400

    def __init__(self, reason: str) -> None:
        super().__init__(
            "InvalidRequestContentException", f"Could not parse request body into json: {reason}"
        )


class RequestTooLargeError(LambdaClientError):
    """The payload of an invocation exceeds the quota."""

    code = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            "RequestTooLargeException",
            f"Request must be smaller than {limit} bytes for the InvokeFunction operation",
        )


class TooManyRequestsError(LambdaClientError):
    """The function or the account has no free concurrency."""

    code = 429

    def __init__(self, reason: str) -> None:
        super().__init__("TooManyRequestsException", "Rate Exceeded.")
        self.description = json.dumps(
            {"__type": self.error_type, "message": self.message, "Reason": reason, "Type": "User"}
        )


class InvalidRuntimeError(LambdaClientError):
    """The function's code or interpreter cannot be used."""

    code = 502

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
