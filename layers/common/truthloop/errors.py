"""Every failure that Truthloop raises by name; state machines match these class names in ``ErrorEquals``."""

from __future__ import annotations


class TruthloopError(Exception):
    """Base of every error that this package raises on purpose."""


class TransientAwsError(TruthloopError):
    """AWS throttled, timed out or failed for a moment: the same call may be made again."""


class AwsRequestFailed(TruthloopError):
    """AWS refused a request for a reason that a retry does not mend.

    Parameters
    ----------
    operation : str
        The API operation, as AWS names it.
    code : str
        The error code in AWS's answer; decisions are taken on it, never on the message.
    message : str
        AWS's own words.
    """

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(f"{operation} failed with {code}: {message}")
        self.operation = operation
        self.code = code


class ConditionFailed(TruthloopError):
    """A conditional write found that the item is no longer what the caller had read."""


class SettingsError(TruthloopError):
    """The function's environment lacks a setting or holds one that cannot be read."""


class InvalidTrigger(TruthloopError):
    """The execution's input is neither an event that may start a retrain nor a manual start."""


class InvalidEvent(TruthloopError):
    """What a function was called with is not what docs/conventions.md says."""


class ClaimLost(TruthloopError):
    """Another execution holds the claim: this one must not act for the generation any more."""


class UploadRejected(TruthloopError):
    """No record of an upload is read, for a reason that is quarantined with the object's name.

    Parameters
    ----------
    reason : str
        The reason code.
    detail : str
        What was wrong and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ObjectMissing(TruthloopError):
    """An object that this step was told to read does not exist."""


class DatasetInvalid(TruthloopError):
    """A dataset version or an evaluation in the bucket is not what its writer promised."""


class PipelineNotFound(TruthloopError):
    """The SageMaker pipeline or the execution that the loop expects does not exist."""


class RecordInvalid(TruthloopError):
    """The generation record is not what this package writes: somebody else has changed the loop table."""


class StartUnsettled(TruthloopError):
    """A start of the pipeline was asked for a moment ago, and whether it was taken cannot be seen yet."""


class PipelineStillRunning(TruthloopError):
    """A decision was asked for while the pipeline execution is still running."""


class ModelPackageInvalid(TruthloopError):
    """A model package lacks what is needed to serve it or to train on from it."""


class EndpointBusy(TruthloopError):
    """The endpoint is being changed by somebody else: reconcile again later."""


class DeploymentRefused(TruthloopError):
    """SageMaker refuses what the package or its deployment asks for: a retry would be refused again."""


class SmokeTestFailed(TruthloopError):
    """The endpoint does not serve what was deployed, or serves it wrongly."""
