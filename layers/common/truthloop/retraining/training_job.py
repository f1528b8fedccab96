"""A training job of a pipeline run, as far as money is concerned."""

from __future__ import annotations

from dataclasses import dataclass

MAX_WAIT_TIME_EXCEEDED = "MaxWaitTimeExceeded"

_WITHOUT_INSTANCES = frozenset(
    {
        "Starting",
        "Pending",
        "LaunchingMLInstances",
        "PreparingTraining",
        "PreparingTrainingStack",
        "Stopping",
        "Stopped",
        "Failed",
        MAX_WAIT_TIME_EXCEEDED,
    }
)
"""Secondary statuses that a job goes through whose instances never came. Whatever else there is, today or
later, means that it had them: in doubt a job has cost."""


@dataclass(frozen=True)
class TrainingJob:
    """What SageMaker says of a training job that has ended (DescribeTrainingJob).

    Parameters
    ----------
    secondary_status : str
        ``SecondaryStatus``, the last of its phases.
    phases : frozenset of str
        Every secondary status that it went through.
    started : bool
        Whether it has a ``TrainingStartTime``: since then it had its instances.
    instance_type : str
        Their type.
    instances : int
        How many they were.
    spot : bool
        Whether they were spot instances.
    training_seconds, billable_seconds : int or None
        ``TrainingTimeInSeconds`` and ``BillableTimeInSeconds``, of one instance; None when it does not say.
    """

    secondary_status: str
    phases: frozenset[str]
    started: bool
    instance_type: str
    instances: int
    spot: bool
    training_seconds: int | None
    billable_seconds: int | None

    @property
    def had_instances(self) -> bool:
        """Whether anything speaks for instances that it had, be it for a second."""
        seconds = (self.training_seconds or 0) + (self.billable_seconds or 0)
        return self.started or seconds > 0 or not self.phases <= _WITHOUT_INSTANCES

    @property
    def waited_in_vain(self) -> bool:
        """Whether no spot instance came until its time to wait was over."""
        return self.secondary_status == MAX_WAIT_TIME_EXCEEDED and not self.had_instances
