"""What the command tells a person who cannot be served."""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot do what was asked; the message says what was wrong and what to do."""


class NoStackError(CommandError):
    """There is no such stack."""


class NotTruthloopError(CommandError):
    """The stack exists but lacks the outputs of a Truthloop stack."""


class NoCredentialsError(CommandError):
    """No credentials or no region are configured."""


class UnreachableError(CommandError):
    """The AWS endpoint does not answer."""


class MissingError(CommandError):
    """A resource that the stack's outputs name does not exist."""


class DeniedError(CommandError):
    """AWS refused or failed a call."""


class BadInputError(CommandError):
    """What was given to the command cannot be used: a file, a line of it, a reason, a name."""


class ChangedError(CommandError):
    """Something changed while the command was working on it, or was done in part only."""


class NotConfirmedError(CommandError):
    """Something would be deleted, and nobody has said yes."""
