"""What can go wrong inside an execution, under the names that the Amazon States Language gives it."""

from __future__ import annotations

RUNTIME = "States.Runtime"
TIMEOUT = "States.Timeout"
HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"
TASK_FAILED = "States.TaskFailed"
QUERY_EVALUATION = "States.QueryEvaluationError"
DATA_LIMIT = "States.DataLimitExceeded"
PARAMETER_PATH = "States.ParameterPathFailure"
RESULT_PATH = "States.ResultPathMatchFailure"
NO_CHOICE = "States.NoChoiceMatched"
INTRINSIC = "States.IntrinsicFailure"
ITEM_READER = "States.ItemReaderFailed"
RESULT_WRITER = "States.ResultWriterFailed"
TOLERANCE = "States.ExceedToleratedFailureThreshold"

RESERVED = frozenset(
    {
        "States.ALL",
        "States.BranchFailed",
        "States.Http.Socket",
        "States.Permissions",
        RUNTIME,
        TIMEOUT,
        HEARTBEAT_TIMEOUT,
        TASK_FAILED,
        QUERY_EVALUATION,
        DATA_LIMIT,
        PARAMETER_PATH,
        RESULT_PATH,
        NO_CHOICE,
        INTRINSIC,
        ITEM_READER,
        RESULT_WRITER,
        TOLERANCE,
    }
)
"""The error names that the service itself raises or matches; users cannot define others in `States.`."""

NEVER_WILDCARD = frozenset({RUNTIME, DATA_LIMIT})
"""Errors that ``States.ALL`` and ``States.TaskFailed`` do not match."""


class StateError(Exception):
    """A state failed with an error name that Retry and Catch can match.

    Parameters
    ----------
    error, cause
        As they appear in the error output.
    aliases
        Further names under which a retrier or catcher may match the error.
    location
        The field of the state whose evaluation failed.
    interpreter
        Whether the interpreter, not a task, found the error: its cause then names the state.
    """

    def __init__(
        self,
        error: str | None,
        cause: str | None = None,
        *,
        aliases: tuple[str, ...] = (),
        location: str | None = None,
        interpreter: bool = False,
    ) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause
        self.aliases = aliases
        self.location = location
        self.interpreter = interpreter

    def matches(self, names: list[str]) -> bool:
        """Tell whether an ``ErrorEquals`` list covers this error."""
        if self.error in names or any(alias in names for alias in self.aliases):
            return True
        if self.error in NEVER_WILDCARD:
            return False
        return "States.ALL" in names or ("States.TaskFailed" in names and self.error != TIMEOUT)

    def output(self) -> dict[str, str]:
        """Return the error output that a catcher receives."""
        return {
            key: value for key, value in (("Error", self.error), ("Cause", self.cause)) if value is not None
        }


class ExecutionLimitError(Exception):
    """The execution reached a quota and fails whatever its states catch."""


def runtime_error(cause: str) -> StateError:
    """Return a ``States.Runtime`` error that the interpreter found."""
    return StateError(RUNTIME, cause, interpreter=True)
