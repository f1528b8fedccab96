"""What can go wrong in the demo, each with one message for the person who started it."""

from __future__ import annotations

from collections.abc import Sequence


class DemoError(Exception):
    """The demo cannot go on.

    Parameters
    ----------
    message
        What was wrong, where, and what to do.
    evidence
        The last lines of what failed: a cause, a log; shown below the message.
    """

    def __init__(self, message: str, evidence: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.evidence = tuple(evidence)


class PortInUseError(DemoError):
    """Something else listens on the wanted port."""


class LocalAwsError(DemoError):
    """The embedded AWS did not start, or ended by itself."""


class DeploymentError(DemoError):
    """The stack could not be deployed."""


class StoryError(DemoError):
    """A step of the story ended otherwise than it must."""


class TookTooLongError(DemoError):
    """A step of the story did not come to its end in time."""
