"""Event source mappings: one poller per mapping takes messages from an SQS queue and invokes the function."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.sqs.exceptions import QueueDoesNotExist, ReceiptHandleIsInvalid

from local.lambda_runtime import batches, sqs
from local.lambda_runtime.batches import BadBatchResponseError
from local.lambda_runtime.errors import (
    InvalidParameterError,
    NotEmulatedError,
    ResourceConflictError,
    ResourceNotFoundError,
    TooManyRequestsError,
)
from local.lambda_runtime.hooks import wrap
from local.lambda_runtime.service import LambdaService

log = logging.getLogger("local.lambda")

DEFAULT_CONCURRENCY = 5
"""Batches at the same time without a ScalingConfig: Lambda starts with five and adds more under load."""
THROTTLE_PAUSE = 0.2
MISSING_QUEUE_PAUSE = 1.0
STREAM_ONLY = (
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "StartingPosition",
    "TumblingWindowInSeconds",
)
NOT_EMULATED = ("ProvisionedPollerConfig", "MetricsConfig", "KMSKeyArn")


class Poller:
    """Polls one queue for one function.

    Parameters
    ----------
    mapping
        moto's ``EventSourceMapping``, read anew for every batch, so that updates take effect at once.
    """

    def __init__(self, service: LambdaService, mapping: Any) -> None:
        self.mapping = mapping
        self._service = service
        self._changed = threading.Event()
        self._wake = self._changed.set  # one object, so that it can be removed again
        self._stopped = False
        self._running = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._poll, name=f"mapping-{mapping.uuid[:8]}", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Look at the mapping again: it was updated."""
        self._changed.set()

    def stop(self) -> None:
        """Take no more messages; batches on their way are finished."""
        self._stopped = True
        self._changed.set()

    def join(self) -> None:
        """Wait until the poller takes no more messages."""
        self._thread.join(5)

    def _poll(self) -> None:
        watched = None
        while not self._stopped:
            self._changed.clear()
            queue = self._queue()
            if queue is not watched:
                if watched is not None:
                    sqs.unlisten(watched, self._wake)
                if queue is not None:
                    sqs.listen(queue, self._wake)
                watched = queue
                self._changed.clear()
            if queue is None:
                self._changed.wait(MISSING_QUEUE_PAUSE)
                continue
            if not self.mapping.enabled or self._running >= self._concurrency():
                self._changed.wait()
                continue
            taken_at = time.monotonic()
            records = self._gather(queue)
            if records:
                with self._lock:
                    self._running += 1
                self._service.aws.submit(self._process, queue, records, taken_at)
                continue
            self._changed.wait(sqs.seconds_until_change(queue))
        if watched is not None:
            sqs.unlisten(watched, self._wake)

    def _queue(self) -> Any:
        from moto.sqs.models import sqs_backends

        _, _, _, region, account, name = self.mapping.event_source_arn.split(":")
        return sqs_backends[account][region].queues.get(name)

    def _concurrency(self) -> int:
        return int((self.mapping.scaling_config or {}).get("MaximumConcurrency") or DEFAULT_CONCURRENCY)

    def _gather(self, queue: Any) -> list[dict[str, Any]]:
        """Take what is there; with a batching window go on until the batch is full or the window is over."""
        size = self.mapping.batch_size
        records = self._take(queue, size)
        if not records:
            return records
        deadline = time.monotonic() + float(self.mapping.max_batch_window or 0)
        while len(records) < size and not self._stopped:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
            self._changed.clear()
            records += self._take(queue, size - len(records))
        return records

    def _take(self, queue: Any, count: int) -> list[dict[str, Any]]:
        records = []
        for message in sqs.take(queue, count, queue.visibility_timeout):
            item = batches.record(message, queue.queue_arn)
            if batches.passes_filter(self.mapping.filter_criteria, item):
                records.append(item)
            else:
                _delete(queue, item)
        return records

    def _process(self, queue: Any, records: list[dict[str, Any]], taken_at: float) -> None:
        try:
            for group in batches.split(records):
                self.mapping.last_result = self._invoke(queue, group, taken_at + queue.visibility_timeout)
        finally:
            with self._lock:
                self._running -= 1
            self._changed.set()

    def _invoke(self, queue: Any, records: list[dict[str, Any]], deadline: float) -> str:
        """Invoke the function with one batch, delete what it has done and return the mapping's result.

        What has failed stays hidden until its visibility timeout has passed, then it is received again.
        """
        backend = self._service.backend(self.mapping.account_id, self.mapping.region)
        payload = json.dumps({"Records": records}).encode()
        while True:
            try:
                function = backend.get_function(self.mapping.function_arn)
                outcome = self._service.invoke(function, payload, invoked_arn=self.mapping.function_arn)
                break
            except UnknownFunctionException:
                return "PROBLEM: Function not found"
            except TooManyRequestsError:
                if self._stopped or time.monotonic() + THROTTLE_PAUSE > deadline:
                    return "PROBLEM: Function throttled"
                time.sleep(THROTTLE_PAUSE)
        if outcome.failed:
            return "PROBLEM: Function call failed"
        failed: set[str] = set()
        if "ReportBatchItemFailures" in (self.mapping.function_response_types or []):
            try:
                failed = batches.failed_items(outcome.payload, {item["messageId"] for item in records})
            except BadBatchResponseError as error:
                log.warning("%s: the whole batch has failed: %s", self.mapping.function_arn, error)
                return "PROBLEM: Function returned an invalid batch response"
        for item in records:
            if item["messageId"] not in failed:
                _delete(queue, item)
        return "OK"


def _delete(queue: Any, item: dict[str, Any]) -> None:
    with contextlib.suppress(ReceiptHandleIsInvalid, QueueDoesNotExist):  # purged or redriven meanwhile
        queue.delete_message(item["receiptHandle"])


class Mappings:
    """All pollers, kept in step with moto's records."""

    def __init__(self, service: LambdaService) -> None:
        self._service = service
        self._pollers: dict[str, Poller] = {}

    def started(self, mapping: Any) -> None:
        """Start polling for a new mapping."""
        self._pollers[mapping.uuid] = Poller(self._service, mapping)

    def changed(self, uuid: str) -> None:
        """Let the poller see an update."""
        if poller := self._pollers.get(uuid):
            poller.refresh()

    def ended(self, uuid: str) -> None:
        """Stop polling for a deleted mapping."""
        if poller := self._pollers.pop(uuid, None):
            poller.stop()

    def stop(self) -> None:
        """Stop every poller."""
        pollers = list(self._pollers.values())
        for poller in pollers:
            poller.stop()
        for poller in pollers:
            poller.join()


def install(service: LambdaService) -> Mappings:
    """Poll for every mapping that is made through moto's Lambda."""
    from moto.awslambda.models import EventSourceMapping, LambdaBackend

    sqs.install()
    mappings = Mappings(service)

    def create(original: Any, self: Any, spec: dict[str, Any]) -> Any:
        _normalise(spec)
        function = self.get_function(spec.get("FunctionName") or "")
        _check(self, spec, function)
        mapping = original(self, spec)
        mapping.function_arn = _qualified(function, spec["FunctionName"])
        mappings.started(mapping)
        return mapping

    def update(original: Any, self: Any, uuid: str, spec: dict[str, Any]) -> Any:
        mapping = self.get_event_source_mapping(uuid)
        if mapping is not None:
            _normalise(spec)
            name = spec.get("FunctionName") or mapping.function_arn
            function = self.get_function(name)
            current = {
                "EventSourceArn": mapping.event_source_arn,
                "BatchSize": mapping.batch_size,
                "MaximumBatchingWindowInSeconds": mapping.max_batch_window,
            }
            _check(self, current | spec, function, updated=mapping)
            original(self, uuid, spec)
            mapping.function_arn = _qualified(function, name)
            mappings.changed(uuid)
        return mapping

    def delete(original: Any, self: Any, uuid: str) -> Any:
        if self.get_event_source_mapping(uuid) is None:
            raise ResourceNotFoundError("The resource you requested does not exist.")
        mappings.ended(uuid)
        return original(self, uuid)

    def find(_: Any, self: Any, event_source_arn: str | None, function_name: str | None) -> list[Any]:
        wanted = self.get_function(function_name).function_arn if function_name else None
        return [
            mapping
            for mapping in list(self._event_source_mappings.values())
            if event_source_arn in (None, "", mapping.event_source_arn)
            and (wanted is None or mapping.function_arn.split(":")[:7] == wanted.split(":")[:7])
        ]

    def configuration(original: Any, self: Any) -> dict[str, Any]:
        return dict(original(self)) | {
            "LastProcessingResult": getattr(self, "last_result", "No records processed")
        }

    wrap(LambdaBackend, "create_event_source_mapping", create)
    wrap(LambdaBackend, "update_event_source_mapping", update)
    wrap(LambdaBackend, "delete_event_source_mapping", delete)
    wrap(LambdaBackend, "list_event_source_mappings", find)
    wrap(EventSourceMapping, "get_configuration", configuration)
    return mappings


def _qualified(function: Any, name_or_arn: str) -> str:
    """Return the unqualified ARN, or with the alias or version that the caller named."""
    arn = ":".join(function.function_arn.split(":")[:7])
    parts = name_or_arn.split(":")
    qualifier = parts[7] if parts[0] == "arn" and len(parts) > 7 else parts[1] if len(parts) == 2 else ""
    return f"{arn}:{qualifier}" if qualifier else arn


def _normalise(spec: dict[str, Any]) -> None:
    """Turn the strings that a template's parameters give into numbers and booleans."""
    for name in ("BatchSize", "MaximumBatchingWindowInSeconds"):
        if spec.get(name) is not None:
            spec[name] = int(spec[name])
    if isinstance(spec.get("Enabled"), str):
        spec["Enabled"] = spec["Enabled"].lower() == "true"


def _check(backend: Any, spec: dict[str, Any], function: Any, updated: Any = None) -> None:
    """Refuse what AWS refuses, and what would be ignored here.

    Raises
    ------
    NotEmulatedError, InvalidParameterError, ResourceConflictError
        With the property and what to do.
    """
    arn = spec.get("EventSourceArn") or ""
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    if service != "sqs":
        raise NotEmulatedError(f"event source mappings of {arn or 'self-managed sources'}: only SQS queues")
    for name in NOT_EMULATED:
        if spec.get(name):
            raise NotEmulatedError(f"{name} of an event source mapping")
    for name in STREAM_ONLY:
        if spec.get(name):
            raise InvalidParameterError(f"{name} is not supported for event source type sqs.")
    from moto.sqs.models import sqs_backends

    queue = sqs_backends[backend.account_id][backend.region_name].queues.get(arn.split(":")[5])
    if queue is None:
        raise InvalidParameterError(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. "
            f"SQS Error Message: The specified queue does not exist: {arn}"
        )
    if queue.visibility_timeout < function.timeout:
        raise InvalidParameterError(
            f"Queue visibility timeout: {queue.visibility_timeout} seconds is less than "
            f"Function timeout: {int(function.timeout)} seconds"
        )
    _check_batching(spec, fifo=queue.fifo_queue)
    for mapping in list(backend._event_source_mappings.values()):
        same = mapping.function_arn.split(":")[:7] == function.function_arn.split(":")[:7]
        if mapping is not updated and same and mapping.event_source_arn == arn:
            raise ResourceConflictError(
                f'An event source mapping with SQS arn (" {arn} ") and '
                f'function (" {function.function_name} ") '
                f"already exists. Please update or delete the existing mapping with UUID {mapping.uuid}"
            )


def _check_batching(spec: dict[str, Any], *, fifo: bool) -> None:
    size, window = spec.get("BatchSize") or 10, spec.get("MaximumBatchingWindowInSeconds") or 0
    most = 10 if fifo else 10_000
    if not 1 <= size <= most:
        raise InvalidParameterError(f"Batch size must be between 1 and {most} for this queue, not {size}.")
    if fifo and window:
        raise InvalidParameterError("Batching window is not supported for FIFO queues")
    if not 0 <= window <= 300:
        raise InvalidParameterError("Maximum batch window in seconds must be between 0 and 300.")
    if size > 10 and window == 0:
        raise InvalidParameterError(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )
    concurrency = (spec.get("ScalingConfig") or {}).get("MaximumConcurrency")
    if concurrency is not None and not 2 <= int(concurrency) <= 1000:
        raise InvalidParameterError("MaximumConcurrency must be between 2 and 1000.")
    unknown = set(spec.get("FunctionResponseTypes") or []) - {"ReportBatchItemFailures"}
    if unknown:
        raise InvalidParameterError(f"Unknown FunctionResponseTypes: {', '.join(sorted(unknown))}")
    for entry in (spec.get("FilterCriteria") or {}).get("Filters") or []:
        _check_filter(entry.get("Pattern") or "{}")


def _check_filter(text: str) -> None:
    from local.events import patterns

    try:
        if json.loads(text):
            patterns.parse(text)
    except ValueError as error:
        raise InvalidParameterError(f"Invalid filter pattern definition: {error}") from error
