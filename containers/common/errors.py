"""What can go wrong in a container, one class per failure.

``exit_code`` tells the two kinds apart for whoever reads a job's status: 2 is the fault of what the
job was given (data, parameters, artefacts) and would fail again the same way; 1 is ours.
"""

from __future__ import annotations


class ContainerError(Exception):
    """A failure whose message is meant for the person who reads the job's failure reason."""

    exit_code = 2


class ContractError(ContainerError):
    """SageMaker's files or environment do not hold what this entry point needs."""


class BadImageError(ContainerError):
    """The bytes are no image that may be decoded."""


class ImageTooLargeError(BadImageError):
    """The image has more bytes or pixels than are accepted."""


class ArtifactError(ContainerError):
    """A model artefact is missing, incomplete or does not fit its architecture."""


class UnusableGpuError(ContainerError):
    """The machine has a GPU that torch cannot use, so the job would compute on the CPU at the GPU's price."""


class BaseSetError(ContainerError):
    """The base set is missing, empty or not in the layout that was agreed."""


class RecordError(ContainerError):
    """A dataset file that our own functions wrote cannot be read."""


class TooLittleDataError(ContainerError):
    """There are too few examples to train on or to compare models with."""


class VolumeTooSmallError(ContainerError):
    """The instance's volume has no room for what the job keeps on it."""


class DeviceTooSmallError(ContainerError):
    """The device has too little memory for what a process is to compute at once."""


class TrainingDivergedError(ContainerError):
    """The loss is no number any more, so what was learnt is worth nothing."""

    exit_code = 1


class ModelDivergedError(ContainerError):
    """A model answers with what is no number, so there is nothing to compare."""


class NoAnswerError(ContainerError):
    """The model computed something that is no probability."""

    exit_code = 1


class DeviceFullError(ContainerError):
    """The device has too little memory left for even one picture."""

    exit_code = 1
