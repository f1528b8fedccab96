"""Start the job that measures the model in service over a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from truthloop.inputs import MonitorInput
from truthloop.ports import Ports
from truthloop.serving.monitor import Window, captures_of, job_name, plan_window
from truthloop.settings import ACCEPTED_PREFIX, METRIC_NAMESPACE, MonitorSettings
from truthloop.times import hour_prefix, to_iso
from truthloop.versions.dataset import manifest

NO_DATA = "NoData"
_INPUT = "/opt/ml/processing/input"
_MAXIMUM_RUNTIME_SECONDS = 3600
_VOLUME_GB = 30


class MonitorOutput(TypedDict):
    """The job of the window."""

    processingJobName: str
    status: str


def run_monitor(event: object, ports: Ports) -> MonitorOutput:
    """Start the monitor job of a window, or find it; the same window is the same job.

    Without a captured prediction there is nothing to measure: no job is started, no metric is published, and
    the status is ``NoData``.

    Raises
    ------
    InvalidEvent
        When the window cannot be read.
    """
    given = MonitorInput.parse(event)
    settings, objects = ports.settings.monitor, ports.objects
    state = ports.endpoint.state()
    window = plan_window(given, settings.frequency, ports.now(), state.last_modified if state else None)
    name = job_name(ports.endpoint.name, window)
    captured = (info.key for info in objects.list(f"capture/{ports.endpoint.name}/"))
    captures = captures_of(captured, window)
    if not captures:
        return {"processingJobName": name, "status": NO_DATA}
    labels = [info.key for info in objects.list(ACCEPTED_PREFIX)]
    manifests = {
        part: f"monitoring/input/{name}/{part}.manifest"
        for part in ("capture", *(("ground-truth",) if labels else ()))
    }
    objects.put(manifests["capture"], manifest(objects.bucket, captures))
    if labels:
        objects.put(manifests["ground-truth"], manifest(objects.bucket, labels))
    inputs = {part: objects.uri(key) for part, key in manifests.items()}
    output = objects.uri(f"monitoring/{ports.endpoint.name}/{hour_prefix(window.end)}/{name}/")
    status = ports.jobs.start(name, _request(ports.endpoint.name, window, inputs, output, settings))
    return {"processingJobName": name, "status": status}


def _request(
    endpoint: str, window: Window, inputs: Mapping[str, str], output: str, settings: MonitorSettings
) -> dict[str, Any]:
    return {
        "AppSpecification": {
            "ImageUri": settings.image_uri,
            "ContainerEntrypoint": ["python", "-m", "training", "monitor"],
        },
        "Environment": {
            "ENDPOINT_NAME": endpoint,
            "WINDOW_START": to_iso(window.start),
            "WINDOW_END": to_iso(window.end),
            "ACCURACY_THRESHOLD": str(settings.accuracy_threshold),
            "MINIMUM_LABELS": str(settings.minimum_labels),
            "METRIC_NAMESPACE": METRIC_NAMESPACE,
        },
        "ProcessingInputs": [
            {
                "InputName": part,
                "S3Input": {
                    "S3Uri": uri,
                    "LocalPath": f"{_INPUT}/{part}",
                    "S3DataType": "ManifestFile",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                },
            }
            for part, uri in inputs.items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "monitoring",
                    "S3Output": {
                        "S3Uri": output,
                        "LocalPath": "/opt/ml/processing/output/monitoring",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": settings.instance_type,
                "VolumeSizeInGB": _VOLUME_GB,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": _MAXIMUM_RUNTIME_SECONDS},
        "RoleArn": settings.role_arn,
    }
