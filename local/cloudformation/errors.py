"""Failures of the embedded CloudFormation, under the codes that clients know."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class TemplateError(ServiceException):
    """The template, its parameters or the request cannot be accepted."""

    code = "ValidationError"


class AlreadyExistsError(ServiceException):
    """A live stack has this name already."""

    code = "AlreadyExistsException"


class InsufficientCapabilitiesError(ServiceException):
    """The request does not acknowledge that the template creates IAM resources or expands macros."""

    code = "InsufficientCapabilitiesException"


class ChangeSetNotFoundError(ServiceException):
    """No change set has this name or ARN."""

    code = "ChangeSetNotFound"


class InvalidChangeSetStatusError(ServiceException):
    """The change set cannot be executed in its present status."""

    code = "InvalidChangeSetStatus"


class ResourceError(Exception):
    """A resource could not be created, changed or deleted as its properties demand."""
