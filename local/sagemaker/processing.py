"""Processing jobs: SageMaker's processing contract around a real process."""

from __future__ import annotations

import json

from local.sagemaker.data_channels import ContinuousUpload
from local.sagemaker.errors import UnsupportedOperation, ValidationError
from local.sagemaker.hosts import Host
from local.sagemaker.jobs import FAILURE_LIMIT, Exit, Job, Start, algorithm_error, read_message, start_once
from local.sagemaker.state import Params, SageMaker, now, tags_of

_COPIED = (
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingJobName",
    "ProcessingResources",
    "StoppingCondition",
    "AppSpecification",
    "Environment",
    "NetworkConfig",
    "RoleArn",
    "ExperimentConfig",
)


class ProcessingJob(Job):
    """A processing job."""

    name_field = "ProcessingJobName"
    status_field = "ProcessingJobStatus"
    log_group = "/aws/sagemaker/ProcessingJobs"
    event_type = "SageMaker Processing Job State Change"

    def __init__(self, sagemaker: SageMaker, region: str, request: Params) -> None:
        created = now()
        name = request["ProcessingJobName"]
        arn = sagemaker.arn(region, f"processing-job/{name}")
        body: Params = {
            **{key: request[key] for key in _COPIED if request.get(key) is not None},
            "ProcessingJobArn": arn,
            "ProcessingJobStatus": "InProgress",
            "CreationTime": created,
            "LastModifiedTime": created,
        }
        body["StoppingCondition"] = body.get("StoppingCondition") or {"MaxRuntimeInSeconds": 86400}
        self._uploads: list[ContinuousUpload] = []
        super().__init__(sagemaker, region, name, arn, body, tags_of(request))

    @property
    def _host(self) -> Host:
        (host,) = self.hosts
        return host

    def prepare(self) -> list[Start]:
        """Fetch the inputs and write the configuration files."""
        application = self.body["AppSpecification"]
        image = self.sagemaker.images.resolve(application["ImageUri"])
        argv = image.argv(
            application.get("ContainerEntrypoint"), application.get("ContainerArguments"), self._host.ml
        )
        for folder in ("config", "output", "processing"):
            (self._host.ml / folder).mkdir(parents=True, exist_ok=True)
        for item in self.body.get("ProcessingInputs") or []:
            self.check_stop()
            source = item["S3Input"]
            directory = self._host.local(source["LocalPath"])
            directory.mkdir(parents=True, exist_ok=True)
            self.channels.download(source["S3Uri"], source["S3DataType"], directory)
        for output in self._outputs():
            directory = self._host.local(output["LocalPath"])
            directory.mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        variables = {
            "PROCESSING_JOB_NAME": self.name,
            "PROCESSING_JOB_ARN": self.arn,
            **(self.body.get("Environment") or {}),
        }
        return [Start(self._host, image, argv, variables)]

    def _outputs(self) -> list[Params]:
        outputs = (self.body.get("ProcessingOutputConfig") or {}).get("Outputs") or []
        return [item["S3Output"] for item in outputs]

    def _write_configuration(self) -> None:
        config = {
            key: self.body.get(key)
            for key in (
                "AppSpecification",
                "Environment",
                "ExperimentConfig",
                "NetworkConfig",
                "ProcessingInputs",
                "ProcessingJobArn",
                "ProcessingJobName",
                "ProcessingOutputConfig",
                "ProcessingResources",
                "RoleArn",
                "StoppingCondition",
            )
        }
        resource = {"current_host": "algo-1", "hosts": ["algo-1"]}
        (self._host.ml / "config/processingjobconfig.json").write_text(json.dumps(config), encoding="utf-8")
        (self._host.ml / "config/resourceconfig.json").write_text(json.dumps(resource), encoding="utf-8")

    def on_started(self) -> None:
        """Note the time and begin the continuous uploads."""
        with self.lock:
            self.body["ProcessingStartTime"] = now()
        for output in self._outputs():
            upload = ContinuousUpload(self.channels, self._host.local(output["LocalPath"]), output["S3Uri"])
            if output["S3UploadMode"] == "Continuous":
                upload.start()
                self._uploads.append(upload)

    def on_exited(self, end: Exit) -> None:
        """Upload the outputs and read the exit message."""
        message = read_message(self._host.ml / "output/message")
        if message:
            with self.lock:
                self.body["ExitMessage"] = message[:FAILURE_LIMIT]
        stopped = self.stop_requested.is_set() or self.timed_out
        if self.sagemaker.aws.stopping.is_set():
            return
        for upload in self._uploads:
            upload.finish()
        if end.code == 0 or stopped:
            for output in self._outputs():
                if output["S3UploadMode"] == "EndOfJob":
                    directory = self._host.local(output["LocalPath"])
                    self.channels.upload_directory(directory, output["S3Uri"], {})
        if end.code != 0 and not stopped:
            raise algorithm_error(message, end.code, self._host.log)

    def settle(self, status: str, failure: str | None) -> None:
        """Write end time and reason."""
        for upload in self._uploads:
            upload.abandon()
        self.body["ProcessingEndTime"] = now()
        if failure:
            self.body["FailureReason"] = failure
        elif self.timed_out:
            self.body["FailureReason"] = (
                "ClientError: MaxRuntimeExceeded: the job ran into its MaxRuntimeInSeconds."
            )


def create(sagemaker: SageMaker, region: str, request: Params) -> ProcessingJob:
    """Validate a CreateProcessingJob request and start the job.

    Raises
    ------
    ValidationError, ResourceInUse, UnsupportedOperation
        The request is wrong, the name is taken, or the embedded AWS cannot do what it asks for.
    """
    _validate(request)
    state, name = sagemaker.region(region), request["ProcessingJobName"]
    arn = sagemaker.arn(region, f"processing-job/{name}")
    return start_once(
        state.held(ProcessingJob), state.lock, name, arn, lambda: ProcessingJob(sagemaker, region, request)
    )


def _validate(request: Params) -> None:
    if request["ProcessingResources"]["ClusterConfig"].get("InstanceCount", 1) != 1:
        raise UnsupportedOperation(
            "ProcessingResources.ClusterConfig.InstanceCount must be 1 on the embedded AWS."
        )
    entries = [
        (f"ProcessingInputs[{index}]", item, "S3Input")
        for index, item in enumerate(request.get("ProcessingInputs") or [])
    ]
    entries += [
        (f"ProcessingOutputConfig.Outputs[{index}]", item, "S3Output")
        for index, item in enumerate((request.get("ProcessingOutputConfig") or {}).get("Outputs") or [])
    ]
    for where, item, kind in entries:
        if kind not in item:
            raise UnsupportedOperation(f"{where} must be an {kind} on the embedded AWS.")
        path = item[kind].get("LocalPath", "")
        if not path.startswith("/opt/ml/") or ".." in path:
            raise ValidationError(f"{where}.{kind}.LocalPath must lie below /opt/ml/processing: {path!r}")
        if item[kind].get("S3InputMode", "File") != "File":
            raise UnsupportedOperation(
                f"{where}.{kind}.S3InputMode Pipe is not supported by the embedded AWS."
            )
        if item[kind].get("S3CompressionType", "None") != "None":
            raise UnsupportedOperation(
                f"{where}.{kind}.S3CompressionType is not supported by the embedded AWS."
            )
