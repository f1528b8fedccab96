"""Failures of the embedded CloudFormation, under the codes that clients know."""

from __future__ import annotations

from moto.core.exceptions import ServiceException


class CloudFormationError(ServiceException):
    """The root of what CloudFormation answers with an error code."""

    def __str__(self) -> str:
        return str(self.message)


class TemplateError(CloudFormationError):
    """The template, its parameters or the request cannot be accepted."""

    code = "ValidationError"


class AlreadyExistsError(CloudFormationError):
    """A live stack has this name already."""

    code = "AlreadyExistsException"


class InsufficientCapabilitiesError(CloudFormationError):
    """The request does not acknowledge that the template creates IAM resources or expands macros."""

    code = "InsufficientCapabilitiesException"


class ChangeSetNotFoundError(CloudFormationError):
    """No change set has this name or ARN."""

    code = "ChangeSetNotFound"


class InvalidChangeSetStatusError(CloudFormationError):
    """The change set cannot be executed in its present status."""

    code = "InvalidChangeSetStatus"


class ResourceError(Exception):
    """A resource could not be created, changed or deleted as its properties demand."""
