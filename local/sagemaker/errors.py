"""What SageMaker answers when it refuses a call; moto serialises these by their ``code``."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class ValidationError(ServiceException):
    """The request is wrong, or names something that does not exist."""

    code = "ValidationException"


class ResourceNotFound(ServiceException):
    """The named resource does not exist."""

    code = "ResourceNotFound"


class ResourceInUse(ServiceException):
    """The name is taken."""

    code = "ResourceInUse"


class ConflictError(ServiceException):
    """The resource is in a state that forbids the change."""

    code = "ConflictException"


class UnsupportedOperation(ServiceException):
    """AWS can do this, the embedded AWS cannot, and it does not pretend."""

    code = "UnsupportedOperation"


class JobError(Exception):
    """A job or an endpoint cannot go on; the message becomes its FailureReason."""
