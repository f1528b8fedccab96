"""What the functions are called with, read into typed objects; what does not fit is named with its place.

The state machines pass exactly what docs/conventions.md says. A person who calls a function by hand may not,
and neither may a machine of another version: both get `InvalidEvent` and never a KeyError from the middle of
a step, when half of it is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from truthloop.errors import InvalidEvent
from truthloop.times import from_iso

MAXIMUM_TEXT = 262_144
"""Characters of a text: a state machine passes on 256 KiB."""

_GENERATION = re.compile(r"g[0-9]{8,18}")
_EARLIEST, _LATEST = 1970, 9000
_SHOWN = 80


def shown(value: object) -> str:
    """Return `value` as an error message shows it: its type, and its beginning."""
    if value is None:
        return "null"
    if isinstance(value, Mapping | list | tuple):
        return f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def is_text(value: object) -> bool:
    """Whether `value` is a string that can be stored: half a surrogate pair is JSON and no UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Fields:
    """The members of one object of an input.

    Parameters
    ----------
    value : object
        What is to be an object.
    where : str
        How messages call it.

    Raises
    ------
    InvalidEvent
        When `value` is no object; each method, when a member is not what it reads.
    """

    def __init__(self, value: object, where: str = "the input") -> None:
        if not isinstance(value, Mapping):
            raise InvalidEvent(f"{where} is {shown(value)}; it must be an object")
        self._value: Mapping[str, Any] = value
        self._where = where

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._value.get(name) is not None

    def text(self, name: str, limit: int = MAXIMUM_TEXT) -> str:
        """Return a text of 1 to `limit` characters."""
        value = self._value.get(name)
        if not isinstance(value, str) or not is_text(value) or not 0 < len(value) <= limit:
            raise self._wrong(name, f"text of 1 to {limit} characters")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a text, or None for null, a member that is not there, and an empty text."""
        return self.text(name) if self._value.get(name, "") not in (None, "") else None

    def generation(self, name: str = "generation") -> str:
        """Return a generation's name."""
        value = self._value.get(name)
        if not isinstance(value, str) or _GENERATION.fullmatch(value) is None:
            raise self._wrong(name, "a generation such as g00000007")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._value.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def number(self, name: str) -> float:
        """Return a number; 0 for null and for a member that is not there."""
        value = self._value.get(name)
        if value is None:
            return 0.0
        # NaN and infinity are Python's JSON and nobody else's; 1e30 is more than any money or count.
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e30 < value < 1e30:
            raise self._wrong(name, "a number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a number, or None for null and a member that is not there."""
        return self.number(name) if self.has(name) else None

    def moment(self, name: str) -> datetime:
        """Return an ISO 8601 instant."""
        value = self._value.get(name)
        try:
            found = from_iso(value) if isinstance(value, str) else None
        except ValueError:
            found = None
        if found is None or not _EARLIEST <= found.year <= _LATEST:
            raise self._wrong(name, "an ISO 8601 time such as 2026-11-22T10:00:00Z")
        return found

    def object(self, name: str) -> Fields:
        """Return the members of an object."""
        return Fields(self._value.get(name), f"{name} of {self._where}")

    def optional_object(self, name: str) -> Fields | None:
        """Return the members of an object, or None for null and a member that is not there."""
        return self.object(name) if self.has(name) else None

    def objects(self, name: str) -> tuple[Mapping[str, Any], ...]:
        """Return a list of objects as they are; empty for null and a member that is not there."""
        value = self._value.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
            raise self._wrong(name, "a list of objects")
        return tuple(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """Return an object as it is; empty for null and a member that is not there."""
        value = self._value.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object")
        return value

    def raw(self, name: str) -> Any:
        """Return a member as it is, for a reader of its own; None when it is not there."""
        return self._value.get(name)

    def _wrong(self, name: str, wanted: str) -> InvalidEvent:
        found = shown(self._value[name]) if name in self._value else "not there"
        return InvalidEvent(f"{name} of {self._where} is {found}; it must be {wanted}")


@dataclass(frozen=True)
class ClaimInput:
    """What claim_run takes; the trigger is untrusted and has a reader of its own."""

    execution: str
    trigger: object
    started_at: datetime

    @classmethod
    def parse(cls, event: object) -> ClaimInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(_execution(fields), fields.raw("trigger"), fields.moment("startedAt"))


@dataclass(frozen=True)
class HeldInput:
    """What preflight_run and snapshot_dataset take: who holds which generation."""

    execution: str
    generation: str

    @classmethod
    def parse(cls, event: object) -> HeldInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(_execution(fields), fields.generation())


@dataclass(frozen=True)
class DatasetInput:
    """What snapshot_dataset gives and start_pipeline takes."""

    dataset_uri: str
    dataset_version: str
    capture_manifest_uri: str
    examples_manifest_uri: str
    champion_manifest_uri: str

    @classmethod
    def parse(cls, fields: Fields) -> DatasetInput:
        """Read the ``dataset`` of an input."""
        return cls(
            dataset_uri=fields.text("datasetUri"),
            dataset_version=fields.text("datasetVersion"),
            capture_manifest_uri=fields.text("captureManifestUri"),
            examples_manifest_uri=fields.text("examplesManifestUri"),
            champion_manifest_uri=fields.text("championManifestUri"),
        )


@dataclass(frozen=True)
class StartInput:
    """What start_pipeline takes; who holds no claim is told so before the dataset is looked at."""

    execution: str
    generation: str
    _dataset: Fields

    @property
    def dataset(self) -> DatasetInput:
        """The dataset version to train on."""
        return DatasetInput.parse(self._dataset)

    @classmethod
    def parse(cls, event: object) -> StartInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(_execution(fields), fields.generation(), fields.object("dataset"))


@dataclass(frozen=True)
class DecideInput:
    """What decide_run takes."""

    generation: str
    pipeline_execution_arn: str
    status: str | None
    failure_reason: str

    @classmethod
    def parse(cls, event: object) -> DecideInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(
            generation=fields.generation(),
            pipeline_execution_arn=fields.text("pipelineExecutionArn", _MAXIMUM_ARN),
            status=fields.optional_text("status"),
            failure_reason=fields.optional_text("failureReason") or "",
        )


@dataclass(frozen=True)
class VerdictPart:
    """What preflight has said, as far as a release needs it."""

    verdict: str
    reason: str
    message: str
    rules: tuple[Mapping[str, Any], ...]
    evidence: Mapping[str, Any]
    estimated_usd: float

    @classmethod
    def parse(cls, fields: Fields | None) -> VerdictPart | None:
        """Read the ``preflight`` of an input."""
        if fields is None:
            return None
        return cls(
            verdict=fields.text("verdict"),
            reason=fields.optional_text("reason") or "",
            message=fields.optional_text("message") or "",
            rules=tuple(_rule(each) for each in fields.objects("rules")),
            evidence=fields.mapping("evidence"),
            estimated_usd=fields.number("estimatedUsd"),
        )


@dataclass(frozen=True)
class ResultPart:
    """What decide_run has said, as far as a release needs it."""

    outcome: str
    message: str
    model_packages: tuple[Mapping[str, Any], ...]
    approve: str | None
    costless: bool
    billed_usd: float | None
    spot_savings_percent: float | None

    @classmethod
    def parse(cls, fields: Fields | None) -> ResultPart | None:
        """Read the ``decision`` of an input."""
        if fields is None:
            return None
        return cls(
            outcome=fields.text("outcome"),
            message=fields.optional_text("message") or "",
            model_packages=tuple(_candidate(each) for each in fields.objects("modelPackages")),
            approve=fields.optional_text("approve"),
            costless=fields.has("costless") and fields.flag("costless"),
            billed_usd=fields.optional_number("billedUsd"),
            spot_savings_percent=fields.optional_number("spotSavingsPercent"),
        )


@dataclass(frozen=True)
class ErrorPart:
    """The error that a state was left by, in Step Functions' words."""

    error: str
    cause: str

    @classmethod
    def parse(cls, fields: Fields | None) -> ErrorPart | None:
        """Read the ``error`` of an input."""
        if fields is None or not (fields.has("Error") or fields.has("Cause")):
            return None
        return cls(fields.optional_text("Error") or "", fields.optional_text("Cause") or "")


@dataclass(frozen=True)
class ReleaseInput:
    """What release_run takes."""

    execution: str
    generation: str
    outcome: str | None
    message: str | None
    preflight: VerdictPart | None
    decision: ResultPart | None
    error: ErrorPart | None

    @classmethod
    def parse(cls, event: object) -> ReleaseInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(
            execution=_execution(fields),
            generation=fields.generation(),
            outcome=fields.optional_text("outcome"),
            message=fields.optional_text("message"),
            preflight=VerdictPart.parse(fields.optional_object("preflight")),
            decision=ResultPart.parse(fields.optional_object("decision")),
            error=ErrorPart.parse(fields.optional_object("error")),
        )


@dataclass(frozen=True)
class PlanInput:
    """What apply_deployment takes: the reconciler's answer; `package` is None when nothing is desired."""

    action: str
    package: str | None

    @classmethod
    def parse(cls, event: object) -> PlanInput:
        """Read the function's input."""
        fields = Fields(event)
        desired = fields.optional_object("desired")
        return cls(fields.text("action"), _package(desired) if desired else None)


@dataclass(frozen=True)
class SmokeTestInput:
    """What smoke_test_endpoint takes, as far as it needs it."""

    config_name: str

    @classmethod
    def parse(cls, event: object) -> SmokeTestInput:
        """Read the function's input."""
        return cls(_config_name(Fields(event)))


@dataclass(frozen=True)
class FinishInput:
    """What finish_deployment takes."""

    package: str
    config_name: str
    succeeded: bool
    message: str

    @classmethod
    def parse(cls, event: object) -> FinishInput:
        """Read the function's input."""
        fields = Fields(event)
        return cls(
            package=_package(fields.object("desired")),
            config_name=_config_name(fields),
            succeeded=fields.flag("succeeded"),
            message=fields.optional_text("message") or "",
        )


@dataclass(frozen=True)
class MonitorInput:
    """What run_monitor takes: a window given by hand, or the scheduled time, or nothing."""

    window: tuple[datetime, datetime] | None
    scheduled_time: datetime | None

    @classmethod
    def parse(cls, event: object) -> MonitorInput:
        """Read the function's input."""
        fields = Fields(event)
        if fields.has("start") or fields.has("end"):
            return cls((fields.moment("start"), fields.moment("end")), None)
        return cls(None, fields.moment("scheduledTime") if fields.has("scheduledTime") else None)


_MAXIMUM_ARN = 2048
_MAXIMUM_NAME = 63


def _rule(value: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = Fields(value, "a rule of the input")
    fields.text("rule")
    fields.flag("passed")
    fields.optional_text("detail")
    fields.optional_text("role")
    return value


def _candidate(value: Mapping[str, Any]) -> Mapping[str, Any]:
    fields = Fields(value, "a model package of the input")
    fields.text("arn", _MAXIMUM_ARN)
    fields.text("candidate")
    fields.flag("recommended")
    fields.number("accuracy")
    return value


def _execution(fields: Fields) -> str:
    return fields.text("execution", _MAXIMUM_ARN)


def _package(desired: Fields) -> str:
    return desired.text("modelPackageArn", _MAXIMUM_ARN)


def _config_name(fields: Fields) -> str:
    return fields.text("configName", _MAXIMUM_NAME)
