"""Training jobs: SageMaker's training contract around a real process.

What differs from AWS: an instance is a process of this machine, and of several each is named by a loopback
address (:mod:`local.sagemaker.hosts`); FastFile channels are copied before the container starts, as File
channels are; checkpoints are uploaded once a second; network isolation takes away only credentials.
A spot instance is taken away only when :mod:`local.sagemaker.spot` says so, and then as soon as the job has
shown that it is under way: by the first metric that the request defines, or the first line where it defines
none. A spot job waits for instances only when it says that there are none.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import Any, NoReturn

from local.sagemaker.data_channels import ALL, ContinuousUpload, Share, is_empty, pack
from local.sagemaker.errors import UnsupportedOperation, ValidationError
from local.sagemaker.hosts import INTERFACE, Host, MeetingPoint, addresses
from local.sagemaker.jobs import (
    Exit,
    Job,
    Start,
    StopRequestedError,
    algorithm_error,
    read_message,
    seconds_between,
    start_once,
)
from local.sagemaker.state import Params, SageMaker, now, tags_of

_MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading the training image and input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Interrupted": "The managed spot instances were interrupted",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Resource released due to exceeding the maximum runtime",
    "MaxWaitTimeExceeded": "Resource released due to exceeding the maximum wait time",
}
_COPIED = (
    "TrainingJobName",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "CheckpointConfig",
    "ExperimentConfig",
    "Environment",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "DebugHookConfig",
    "ProfilerConfig",
    "TensorBoardOutputConfig",
    "RetryStrategy",
)
_CHECKPOINTS = "/opt/ml/checkpoints"

MOST_INSTANCES = 16
"""Of one job; each is a process here."""


class TrainingJob(Job):
    """A training job."""

    name_field = "TrainingJobName"
    status_field = "TrainingJobStatus"
    log_group = "/aws/sagemaker/TrainingJobs"
    event_type = "SageMaker Training Job State Change"

    def __init__(self, sagemaker: SageMaker, region: str, request: Params) -> None:
        created = now()
        name = request["TrainingJobName"]
        arn = sagemaker.arn(region, f"training-job/{name}")
        output = request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
        body: Params = {
            **{key: request[key] for key in _COPIED if request.get(key) is not None},
            "TrainingJobArn": arn,
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "CreationTime": created,
            "LastModifiedTime": created,
            "SecondaryStatusTransitions": [
                {"Status": "Starting", "StartTime": created, "StatusMessage": _MESSAGES["Starting"]}
            ],
        }
        body["StoppingCondition"] = body.get("StoppingCondition") or {"MaxRuntimeInSeconds": 86400}
        self._output = f"{output}/{name}/output"
        self._metrics = [
            (item["Name"], re.compile(item["Regex"]))
            for item in request["AlgorithmSpecification"].get("MetricDefinitions") or []
        ]
        self._found: dict[str, Params] = {}
        self._checkpoints: list[ContinuousUpload] = []
        self._meeting_point: MeetingPoint | None = None
        self._spot = bool(request.get("EnableManagedSpotTraining"))
        self._under_way = False
        self._reclaimed = False
        self._created = time.monotonic()
        self._started: float | None = None
        self._trained = 0.0
        instances = int(request["ResourceConfig"].get("InstanceCount", 1))
        super().__init__(sagemaker, region, name, arn, body, tags_of(request), instances)

    def _enter(self, secondary: str) -> None:
        with self.lock:
            moment = now()
            transitions = self.body["SecondaryStatusTransitions"]
            transitions[-1]["EndTime"] = moment
            transitions[-1]["StatusMessage"] = _MESSAGES[transitions[-1]["Status"]]
            transitions.append(
                {"Status": secondary, "StartTime": moment, "StatusMessage": _MESSAGES[secondary]}
            )
            self.body["SecondaryStatus"] = secondary
            self.body["LastModifiedTime"] = moment
        self.publish()

    def deadline(self) -> float:
        """Return the earlier end: of the time to run, all instances together, or of the time to wait."""
        self._started = time.monotonic()
        limits = self.body["StoppingCondition"]
        end = self._started + float(limits.get("MaxRuntimeInSeconds", 86400)) - self._trained
        return min(end, self._created + float(limits.get("MaxWaitTimeInSeconds", float("inf"))))

    def reclaimed(self) -> bool:
        """Whether a spot instance has been taken away."""
        if self._spot and self._under_way and not self._reclaimed:
            self._reclaimed = self.sagemaker.spot.take_away()
        return self._reclaimed

    def run_containers(self) -> Exit:
        """Run the containers, on other instances whenever a spot instance was taken away."""
        if self._spot and not self.sagemaker.spot.has(self.body["ResourceConfig"].get("InstanceType", "")):
            self._wait_in_vain()
        while True:
            end = super().run_containers()
            self._count_training()
            # They may have come to their end before they heard of it.
            if not self._reclaimed or self.stop_requested.is_set() or self.timed_out or end.code == 0:
                return end
            self._change_instances()

    def _wait_in_vain(self) -> NoReturn:
        """Wait for instances that never come, until the time to wait is over."""
        end = self._created + float(self.body["StoppingCondition"]["MaxWaitTimeInSeconds"])
        while time.monotonic() <= end and not self.sagemaker.aws.stopping.is_set():
            if self.stop_requested.wait(0.1):
                raise StopRequestedError
        self.timed_out = True
        raise StopRequestedError

    def _change_instances(self) -> None:
        """Keep the checkpoints and lose all the rest: one instance that is gone ends the job on all."""
        self._under_way = self._reclaimed = False
        self._finish_checkpoints()
        self._enter("Interrupted")
        for host in self.hosts:
            shutil.rmtree(host.ml)
        self._enter("Starting")

    def _count_training(self) -> None:
        if self._started is not None:
            self._trained += time.monotonic() - self._started
            self._started = None

    def request_stop(self) -> None:
        """Stop; the secondary status follows at once."""
        super().request_stop()
        with self.lock:
            if self.stop_requested.is_set() and not self.terminal:
                self.body["SecondaryStatus"] = "Stopping"

    def prepare(self) -> list[Start]:
        """Lay out each host's /opt/ml as the contract says."""
        specification = self.body["AlgorithmSpecification"]
        image = self.sagemaker.images.resolve(specification["TrainingImage"])
        arguments = specification.get("ContainerArguments") or ["train"]
        lines = [
            image.argv(specification.get("ContainerEntrypoint"), arguments, host.ml) for host in self.hosts
        ]
        self._enter("Downloading")
        channels = self.body.get("InputDataConfig") or []
        meeting = self._meet()
        starts = []
        for number, (host, argv) in enumerate(zip(self.hosts, lines, strict=True)):
            for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
                (host.ml / folder).mkdir(parents=True, exist_ok=True)
            for channel in channels:
                self.check_stop()
                self._download(channel, host, number)
            self._restore_checkpoints(host)
            variables = self._write_configuration(channels, host, number)
            starts.append(Start(host, image, argv, meeting | variables))
        self._enter("Training")
        with self.lock:
            self.body.setdefault("TrainingStartTime", now())
        return starts

    def _meet(self) -> dict[str, str]:
        """Return the variable that says where the hosts meet, if there are several."""
        if len(self.hosts) == 1:
            return {}
        if self._meeting_point is None:
            self._meeting_point = MeetingPoint()
        return {"MASTER_PORT": str(self._meeting_point.port)}

    def _download(self, channel: Params, host: Host, number: int) -> None:
        source = channel["DataSource"]["S3DataSource"]
        sharded = _distribution(channel) == "ShardedByS3Key"
        directory = host.ml / "input/data" / channel["ChannelName"]
        directory.mkdir(exist_ok=True)
        share = Share(number, len(self.hosts)) if sharded else ALL
        self.channels.download(source["S3Uri"], source["S3DataType"], directory, share)

    def _restore_checkpoints(self, host: Host) -> None:
        config = self.body.get("CheckpointConfig")
        if not config:
            return
        directory = host.local(config.get("LocalPath", _CHECKPOINTS))
        directory.mkdir(parents=True, exist_ok=True)
        self.channels.download_if_any(config["S3Uri"], directory)
        upload = ContinuousUpload(self.channels, directory, config["S3Uri"])
        upload.start(skip_present=True)
        self._checkpoints.append(upload)

    def _finish_checkpoints(self) -> None:
        for upload in self._checkpoints:
            upload.finish()
        self._checkpoints.clear()

    def _write_configuration(self, channels: list[Params], host: Host, number: int) -> dict[str, str]:
        hyper = dict(self.body.get("HyperParameters") or {})
        hosts = addresses(len(self.hosts))
        resource = {
            "current_host": hosts[number],
            "current_instance_type": self.body["ResourceConfig"].get("InstanceType", ""),
            "hosts": hosts,
            "network_interface_name": INTERFACE,
        }
        inputs = {
            channel["ChannelName"]: {
                "TrainingInputMode": _input_mode(channel, self.body["AlgorithmSpecification"]),
                "S3DistributionType": _distribution(channel),
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                **({"ContentType": channel["ContentType"]} if channel.get("ContentType") else {}),
            }
            for channel in channels
        }
        for name, value in (
            ("hyperparameters", hyper),
            ("resourceconfig", resource),
            ("inputdataconfig", inputs),
        ):
            (host.ml / f"input/config/{name}.json").write_text(json.dumps(value), encoding="utf-8")
        return {
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.arn,
            "SM_MODEL_DIR": "/opt/ml/model",
            "SM_OUTPUT_DATA_DIR": "/opt/ml/output/data",
            "SM_OUTPUT_DIR": "/opt/ml/output",
            "SM_INPUT_DIR": "/opt/ml/input",
            "SM_INPUT_CONFIG_DIR": "/opt/ml/input/config",
            "SM_CHANNELS": json.dumps(sorted(inputs)),
            "SM_HPS": json.dumps(hyper),
            "SM_CURRENT_HOST": hosts[number],
            "SM_HOSTS": json.dumps(hosts),
            **{f"SM_CHANNEL_{name.upper()}": f"/opt/ml/input/data/{name}" for name in inputs},
            **(self.body.get("Environment") or {}),
        }

    def on_started(self) -> None:
        """Nothing to add: the status changed when the data was there."""

    def take_lines(self, host: Host, lines: list[str]) -> None:
        """Log the lines and look for the metrics that the request defined."""
        super().take_lines(host, lines)
        self._under_way = self._under_way or bool(lines and not self._metrics)
        for line in lines if self._metrics else ():
            for name, regex in self._metrics:
                match = regex.search(line)
                if match:
                    try:
                        value = float(match.group(1))
                    except (ValueError, IndexError):
                        continue  # CloudWatch takes numbers only; SageMaker skips the rest as well
                    self._under_way = True
                    self._found[name] = {"MetricName": name, "Value": value, "Timestamp": now()}

    def on_exited(self, end: Exit) -> None:
        """Upload the artefacts; also those of a stopped job, and the output of a failed one."""
        stopped = self.stop_requested.is_set() or self.timed_out
        with self.lock:
            self.body["FinalMetricDataList"] = list(self._found.values())
        if not self.sagemaker.aws.stopping.is_set():
            self._enter("Uploading")
            self._finish_checkpoints()
            # A stopped job may have nothing to keep; a completed one always has a model archive.
            if (end.code == 0 and not stopped) or (stopped and self._wrote("model")):
                self._upload("model", "model.tar.gz")
                with self.lock:
                    self.body["ModelArtifacts"] = {"S3ModelArtifacts": f"{self._output}/model.tar.gz"}
            if self._wrote("output/data"):
                self._upload("output/data", "output.tar.gz")
        if end.code != 0 and not stopped:
            raise algorithm_error(read_message(end.host.ml / "output/failure"), end.code, end.host.log)

    def _wrote(self, folder: str) -> bool:
        return not all(is_empty(host.ml / folder) for host in self.hosts)

    def _upload(self, folder: str, name: str) -> None:
        archive = self.base / name
        pack({host.name: host.ml / folder for host in self.hosts}, archive)
        self.channels.upload_file(archive, f"{self._output}/{name}")
        archive.unlink()

    def settle(self, status: str, failure: str | None) -> None:
        """Close the transitions and count the time."""
        for upload in self._checkpoints:
            upload.abandon()
        if self._meeting_point is not None:
            self._meeting_point.close()
        secondary = self._limit_exceeded() if self.timed_out else status
        moment = now()
        transitions = self.body["SecondaryStatusTransitions"]
        transitions[-1]["EndTime"] = moment
        message = failure or _MESSAGES[secondary]
        transitions.append(
            {"Status": secondary, "StartTime": moment, "EndTime": moment, "StatusMessage": message}
        )
        self.body["SecondaryStatus"] = secondary
        self.body["TrainingEndTime"] = moment
        if failure:
            self.body["FailureReason"] = failure
        started = self.body.get("TrainingStartTime")
        if started:
            whole = seconds_between(started, moment)
            self.body["TrainingTimeInSeconds"] = whole
            # Spot instances are billed for what they ran, and what that costs less is not known here.
            self.body["BillableTimeInSeconds"] = min(whole, max(1, round(self._trained)))

    def _limit_exceeded(self) -> str:
        waited = time.monotonic() - self._created
        longest = self.body["StoppingCondition"].get("MaxWaitTimeInSeconds", float("inf"))
        return "MaxWaitTimeExceeded" if waited > longest else "MaxRuntimeExceeded"


def create(sagemaker: SageMaker, region: str, request: Params) -> TrainingJob:
    """Validate a CreateTrainingJob request and start the job.

    Raises
    ------
    ValidationError, ResourceInUse, UnsupportedOperation
        The request is wrong, the name is taken, or the embedded AWS cannot do what it asks for.
    """
    _validate(request)
    state, name = sagemaker.region(region), request["TrainingJobName"]
    arn = sagemaker.arn(region, f"training-job/{name}")
    return start_once(
        state.held(TrainingJob), state.lock, name, arn, lambda: TrainingJob(sagemaker, region, request)
    )


def _input_mode(channel: Params, specification: Params) -> str:
    return str(channel.get("InputMode") or specification.get("TrainingInputMode", "File"))


def _distribution(channel: Params) -> str:
    return str(channel["DataSource"]["S3DataSource"].get("S3DataDistributionType", "FullyReplicated"))


def _validate_limits(request: Params) -> None:
    """Judge the times as CreateTrainingJob does."""
    limits = request.get("StoppingCondition") or {}
    wait, spot = limits.get("MaxWaitTimeInSeconds"), request.get("EnableManagedSpotTraining")
    if wait is not None and not spot:
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
        )
    if spot and (wait is None or wait < limits.get("MaxRuntimeInSeconds", 86400)):
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds"
        )


def _validate(request: Params) -> None:
    _validate_limits(request)
    for needed in ("AlgorithmSpecification", "ResourceConfig"):
        if not request.get(needed):
            # Optional in the API for serverless training jobs alone.
            raise ValidationError(f"{needed} is missing: the embedded AWS has no serverless training jobs.")
    specification = request["AlgorithmSpecification"]
    if not specification.get("TrainingImage"):
        raise UnsupportedOperation(
            "AlgorithmSpecification.TrainingImage is missing; the embedded AWS has no built-in algorithms."
        )
    for index, item in enumerate(specification.get("MetricDefinitions") or []):
        try:
            re.compile(item["Regex"])
        except re.error as error:
            raise ValidationError(
                f"Invalid regular expression in AlgorithmSpecification.MetricDefinitions[{index}].Regex: "
                f"{error}"
            ) from error
    if specification["TrainingInputMode"] == "Pipe":
        raise UnsupportedOperation(
            "AlgorithmSpecification.TrainingInputMode Pipe is not supported by the embedded AWS."
        )
    if request["ResourceConfig"].get("InstanceGroups"):
        raise UnsupportedOperation("ResourceConfig.InstanceGroups is not supported by the embedded AWS.")
    if not 1 <= request["ResourceConfig"].get("InstanceCount", 1) <= MOST_INSTANCES:
        raise UnsupportedOperation(
            f"ResourceConfig.InstanceCount must be from 1 to {MOST_INSTANCES} on the embedded AWS."
        )
    names: set[Any] = set()
    for index, channel in enumerate(request.get("InputDataConfig") or []):
        where = f"InputDataConfig[{index}]"
        if channel["ChannelName"] in names:
            raise ValidationError(f"{where}.ChannelName {channel['ChannelName']!r} is used twice.")
        names.add(channel["ChannelName"])
        mode = _input_mode(channel, specification)
        if (
            mode == "FastFile"
            and channel["DataSource"].get("S3DataSource", {}).get("S3DataType") != "S3Prefix"
        ):
            raise ValidationError(
                f"{where}: FastFile mode takes an S3DataSource of the S3DataType S3Prefix only."
            )
        if mode == "Pipe":
            raise UnsupportedOperation(f"{where}.InputMode Pipe is not supported by the embedded AWS.")
        if channel.get("CompressionType", "None") != "None":
            raise UnsupportedOperation(f"{where}.CompressionType is not supported by the embedded AWS.")
        if "S3DataSource" not in channel["DataSource"]:
            raise UnsupportedOperation(f"{where}.DataSource must be an S3DataSource on the embedded AWS.")
    if request["OutputDataConfig"].get("CompressionType", "GZIP") != "GZIP":
        raise UnsupportedOperation(
            "OutputDataConfig.CompressionType NONE is not supported by the embedded AWS."
        )
