"""Data capture in SageMaker's format: sampled, encoded, written in files of several records.

The format is that of ``mm_data_capture_record.json``: one JSON object per line under
``{destination}/{endpoint}/{variant}/yyyy/mm/dd/hh/mm-ss-mmm-<uuid>.jsonl``.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from local.context import LocalAws
from local.sagemaker.data_channels import split_uri
from local.sagemaker.rights import s3_as
from local.sagemaker.state import Params

log = logging.getLogger("local.sagemaker")

FLUSH_SECONDS = 1.0
FLUSH_RECORDS = 100


class CaptureWriter:
    """Captures the traffic of one variant under one endpoint configuration.

    Parameters
    ----------
    aws, region, role_arn
        Where the bucket is, and whose rights write to it.
    config
        DataCaptureConfig of the endpoint configuration.
    endpoint_name, variant
        They are part of the keys.
    """

    def __init__(
        self, aws: LocalAws, region: str, role_arn: str, config: Params, endpoint_name: str, variant: str
    ) -> None:
        self._aws = aws
        self._s3 = s3_as(aws, region, role_arn)
        self._bucket, prefix = split_uri(config["DestinationS3Uri"])
        self._prefix = "/".join(part for part in (prefix.rstrip("/"), endpoint_name, variant) if part)
        self._percentage = float(config["InitialSamplingPercentage"])
        self._modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        header = config.get("CaptureContentTypeHeader") or {}
        self._csv = {kind.lower() for kind in header.get("CsvContentTypes") or []}
        self._json = {kind.lower() for kind in header.get("JsonContentTypes") or []}
        self._pending: list[str] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture-{endpoint_name}", daemon=True)
        self._thread.start()

    def record(
        self,
        request: tuple[str | None, bytes],
        response: tuple[str | None, bytes],
        inference_id: str | None,
        custom_attributes: str | None,
    ) -> None:
        """Take one request and its response, each as content type and body, if sampled."""
        if self._percentage < 100 and random.random() * 100 >= self._percentage:  # noqa: S311 - sampling
            return
        moment = datetime.now(UTC)
        data: dict[str, Any] = {}
        for member, mode, (kind, body) in (
            ("endpointInput", "Input", request),
            ("endpointOutput", "Output", response),
        ):
            if mode in self._modes or "InputAndOutput" in self._modes:
                encoding, text = self._encode(kind, body)
                data[member] = {
                    "observedContentType": kind,
                    "mode": mode.upper(),
                    "data": text,
                    "encoding": encoding,
                }
        metadata: dict[str, Any] = {"eventId": str(uuid.uuid4())}
        if custom_attributes:
            metadata["customAttributes"] = [custom_attributes]
        if inference_id:
            metadata["inferenceId"] = inference_id
        metadata["inferenceTime"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        line = json.dumps(
            {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}, separators=(",", ":")
        )
        with self._lock:
            self._pending.append(line)
            full = len(self._pending) >= FLUSH_RECORDS
        if full:
            self._wake.set()

    def close(self) -> None:
        """Write what is left."""
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _encode(self, kind: str | None, body: bytes) -> tuple[str, str]:
        plain = (kind or "").split(";")[0].strip().lower()
        encoding = "CSV" if plain in self._csv else "JSON" if plain in self._json else "BASE64"
        if encoding != "BASE64":
            try:
                return encoding, body.decode("utf-8")
            except UnicodeDecodeError:
                log.warning("captured %s is not UTF-8; it is written as BASE64", kind)
        return "BASE64", base64.b64encode(body).decode()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._pending = self._pending, []
        if not lines:
            return
        moment = datetime.now(UTC)
        name = f"{moment:%M-%S}-{moment.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
        key = f"{self._prefix}/{moment:%Y/%m/%d/%H}/{name}"
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=("\n".join(lines) + "\n").encode("utf-8"))
        except Exception as error:
            # As on AWS, a capture that cannot be written does not disturb the inference.
            if not self._aws.stopping.is_set():
                target = f"s3://{self._bucket}/{key}"
                log.warning("%d captured records were not written to %s: %s", len(lines), target, error)
