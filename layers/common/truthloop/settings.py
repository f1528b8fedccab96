"""The functions' environment, read once per process into one typed object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from truthloop.errors import SettingsError

LOOP_TABLE_NAME = "LOOP_TABLE_NAME"
DATA_BUCKET_NAME = "DATA_BUCKET_NAME"
PIPELINE_NAME = "PIPELINE_NAME"
MODEL_PACKAGE_GROUP_NAME = "MODEL_PACKAGE_GROUP_NAME"
ENDPOINT_NAME = "ENDPOINT_NAME"
POLICY = "POLICY"
DEPLOYMENT = "DEPLOYMENT"
MONITOR = "MONITOR"

INBOX_PREFIX = "ground-truth/inbox/"
IMAGES_PREFIX = "ground-truth/images/"
ACCEPTED_PREFIX = "ground-truth/accepted/"
QUARANTINE_PREFIX = "ground-truth/quarantine/"
NO_CAPTURE_PREFIX = f"{QUARANTINE_PREFIX}no-capture/"
EXPIRED_PREFIX = "ground-truth/expired/"
FORGOTTEN_PREFIX = "ground-truth/forgotten/"
BASE_PREFIX = "base/"
CHECKPOINTS_PREFIX = "checkpoints/"
SMOKE_TEST_PREFIX = "smoke-test/"
METRIC_NAMESPACE = "Truthloop"

SET_ASIDE = "set-aside"
MAJORITY = "majority"
"""What happens to a label that its authors disagree about."""

_ARCHITECTURE = re.compile(r"^(?:sm|compute)_[1-9][0-9]{1,2}[af]?$")


@dataclass(frozen=True)
class PolicySettings:
    """What a retrain run may cost, when one is worth it, and how it trains.

    A `monthly_spend_cap_usd` of 0 means no cap, a `maximum_model_age_days` of 0 no limit, and an
    `instance_price_usd` of 0 the list price. With `use_spot_training` a training job may take
    `max_wait_seconds` with all interruptions. `code_version` names what makes training another one: image,
    architectures, hyperparameters. `training_image_architectures` are spelt as PyTorch lists them
    (``torch.cuda.get_arch_list()``: ``sm_70``, ``compute_90``); none means those of the image that is built
    here. Without an `accuracy_alarm_name` no alarm is read.
    """

    minimum_new_labels: int
    cooldown_minutes: float
    monthly_spend_cap_usd: float
    expected_instance_hours: float
    training_instance_type: str
    processing_instance_type: str
    max_runtime_seconds: int
    accuracy_threshold: float
    improvement_margin: float
    holdout_share: float
    epochs: int
    approval: str
    code_version: str
    instance_price_usd: float = 0.0
    minimum_new_labels_per_class: int = 0
    maximum_model_age_days: float = 0.0
    maximum_author_share: float = 1.0
    conflict_resolution: str = SET_ASIDE
    capture_horizon_hours: float = 24.0
    capture_wait_minutes: float = 30.0
    training_image_architectures: tuple[str, ...] = ()
    accuracy_alarm_name: str = ""
    maximum_class_loss: float = 0.1
    training_instance_count: int = 1
    volume_size_gb: int = 100
    use_spot_training: bool = False
    max_wait_seconds: int = 259_200

    def __post_init__(self) -> None:
        if self.approval not in ("auto", "manual"):
            raise SettingsError(f"{POLICY}: approval is {self.approval!r}; it must be auto or manual")
        if self.conflict_resolution not in (SET_ASIDE, MAJORITY):
            raise SettingsError(
                f"{POLICY}: conflictResolution is {self.conflict_resolution!r}; it must be {SET_ASIDE} or "
                f"{MAJORITY}"
            )
        if self.training_instance_count < 1:
            raise SettingsError(
                f"{POLICY}: trainingInstanceCount is {self.training_instance_count}; it must be at least 1"
            )
        if self.use_spot_training and self.max_wait_seconds < self.max_runtime_seconds:
            raise SettingsError(
                f"{POLICY}: maxWaitSeconds is {self.max_wait_seconds}, less than maxRuntimeSeconds "
                f"({self.max_runtime_seconds}), which it includes: raise the parameter MaxWaitSeconds"
            )
        if not 0 < self.maximum_author_share <= 1:
            raise SettingsError(
                f"{POLICY}: maximumAuthorShare is {self.maximum_author_share:g}; it must be above 0 and at "
                "most 1"
            )
        for name in ("minimum_new_labels_per_class", "maximum_model_age_days", "capture_wait_minutes"):
            if not getattr(self, name) >= 0:
                raise SettingsError(
                    f"{POLICY}: {_camel(name)} is {getattr(self, name)}; it must be 0 or more"
                )
        if not self.capture_horizon_hours > 0:
            raise SettingsError(
                f"{POLICY}: captureHorizonHours is {self.capture_horizon_hours:g}; it must be above 0"
            )
        strange = [name for name in self.training_image_architectures if not _ARCHITECTURE.match(name)]
        if strange:
            raise SettingsError(
                f"{POLICY}: trainingImageArchitectures holds {strange}; name them as "
                "torch.cuda.get_arch_list() does, for example sm_70 or compute_90"
            )


@dataclass(frozen=True)
class DeploymentSettings:
    """How a package is put into service."""

    instance_type: str
    instance_count: int
    role_arn: str
    bake_seconds: int
    alarm_names: tuple[str, ...]
    variant_name: str
    capture_share_percent: int

    def __post_init__(self) -> None:
        if self.instance_count < 1:
            raise SettingsError(
                f"{DEPLOYMENT}: instanceCount is {self.instance_count}; it must be at least 1"
            )
        if not 0 <= self.bake_seconds <= 3600:
            raise SettingsError(
                f"{DEPLOYMENT}: bakeSeconds is {self.bake_seconds}; SageMaker allows 0 to 3600"
            )


@dataclass(frozen=True)
class MonitorSettings:
    """How the model in service is watched."""

    image_uri: str
    role_arn: str
    instance_type: str
    accuracy_threshold: float
    minimum_labels: int
    frequency: str

    def __post_init__(self) -> None:
        if self.frequency not in ("daily", "weekly"):
            raise SettingsError(f"{MONITOR}: frequency is {self.frequency!r}; it must be daily or weekly")


class Settings:
    """The environment of one function; a setting is read when it is first asked for.

    Each function has only the variables that it needs, so a missing one is an error where it is used.

    Parameters
    ----------
    environment : Mapping[str, str]
        Usually ``os.environ``.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    @cached_property
    def table_name(self) -> str:
        """Name of the loop table."""
        return self._text(LOOP_TABLE_NAME)

    @cached_property
    def bucket(self) -> str:
        """Name of the data bucket."""
        return self._text(DATA_BUCKET_NAME)

    @cached_property
    def pipeline_name(self) -> str:
        """Name of the SageMaker pipeline."""
        return self._text(PIPELINE_NAME)

    @cached_property
    def model_package_group(self) -> str:
        """Name of the registry's package group."""
        return self._text(MODEL_PACKAGE_GROUP_NAME)

    @cached_property
    def endpoint_name(self) -> str:
        """Name of the endpoint."""
        return self._text(ENDPOINT_NAME)

    @cached_property
    def policy(self) -> PolicySettings:
        """The retrain policy."""
        return _read(PolicySettings, POLICY, self._text(POLICY))

    @cached_property
    def deployment(self) -> DeploymentSettings:
        """The deployment settings."""
        return _read(DeploymentSettings, DEPLOYMENT, self._text(DEPLOYMENT))

    @cached_property
    def monitor(self) -> MonitorSettings:
        """The monitor settings."""
        return _read(MonitorSettings, MONITOR, self._text(MONITOR))

    def _text(self, name: str) -> str:
        value = self._environment.get(name, "")
        if not value:
            raise SettingsError(
                f"the environment variable {name} is not set; template.yaml sets it on every function that "
                "needs it"
            )
        return value


_T = TypeVar("_T", PolicySettings, DeploymentSettings, MonitorSettings)


def _read(kind: type[_T], variable: str, text: str) -> _T:
    """Build `kind` from a JSON object with camelCase keys; unknown and missing keys are errors."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"the environment variable {variable} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise SettingsError(f"the environment variable {variable} must be a JSON object")
    hints = get_type_hints(kind)
    known = {_camel(field.name): field for field in fields(kind)}
    unknown = sorted(set(given) - set(known))
    required = {key for key, field in known.items() if field.default is MISSING}
    missing = sorted(required - set(given))
    if unknown or missing:
        raise SettingsError(f"{variable}: unknown keys {unknown}, missing keys {missing}")
    values = {
        known[key].name: _coerce(variable, key, hints[known[key].name], value) for key, value in given.items()
    }
    return kind(**values)


def _coerce(variable: str, key: str, wanted: Any, value: Any) -> Any:
    # CloudFormation substitutes every parameter as text, so "100" and 100 mean the same here.
    try:
        if wanted is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if wanted == tuple[str, ...]:
            return tuple(str(part) for part in _list(value) if part)
        return wanted(value)
    except (TypeError, ValueError, KeyError) as error:
        raise SettingsError(f"{variable}: {key} is {value!r}, which is not readable: {error}") from error


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
