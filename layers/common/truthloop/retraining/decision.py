"""What a run came to, and the decision log's item."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from truthloop.errors import DatasetInvalid
from truthloop.names import execution_name
from truthloop.retraining.training_job import TrainingJob
from truthloop.versions.dataset import require_version

COALESCED = "COALESCED"
REFUSED = "REFUSED"
SUCCEEDED = "SUCCEEDED"
REJECTED_BY_GATE = "REJECTED_BY_GATE"
FAILED = "FAILED"
STOPPED = "STOPPED"
DEPLOYED = "DEPLOYED"
REJECTED = "REJECTED"
SUPERSEDED = "SUPERSEDED"
WAITED = "WAITED"
INVALID = "INVALID"
FORGOTTEN = "FORGOTTEN"

TRAINED = frozenset({SUCCEEDED, REJECTED_BY_GATE})
"""Outcomes of runs that did train: their dataset's labels are not new any more."""

PIPELINE_LIVE = frozenset({"Executing", "Stopping"})
PIPELINE_SUCCEEDED = "Succeeded"
MAXIMUM_METADATA_VALUE = 256
GATE_STEP = "FailGate"
EVALUATION_VERSIONS = (1, 2)
"""2 has more members. A run that an older image has evaluated is still decided."""
TRAINING_STEPS = frozenset({"TrainOld", "TrainNew"})
STEP_FAILED = "Failed"
STEP_STOPPED = "Stopped"

_NO_INSTANCES = (
    "CapacityError",
    "InsufficientInstanceCapacity",
    "ResourceLimitExceeded",
    "account-level service limit",
)
"""What a step says that got no instance: AWS had none, or the quota was taken after it was read. A pipeline
names no error code for the latter, only the sentence of CreateTrainingJob."""

_REFUSED_IN_METADATA = re.compile(r"[^\w .:/=+\-@]")
_SPELT_IN_METADATA = {"%": "percent", "(": "- ", ";": " -"}


def decision_key(at: str, execution: str) -> str:
    """Return the ``sk`` of an execution's decision of that time."""
    return f"{at}#{execution_name(execution)}"


@dataclass(frozen=True)
class Decision:
    """One item of the decision log.

    Of a run that failed, `costless` says that it never had instances (`is_costless`), and `trained` that its
    pipeline succeeded and only the result could not be read. `billed_usd` is what its training jobs were
    billed, and `spot_savings_percent` what spot instances saved of that; None where it is not known.
    """

    at: str
    execution: str
    generation: str
    outcome: str
    reason: str
    message: str = ""
    triggers: tuple[Mapping[str, Any], ...] = ()
    rules: tuple[Mapping[str, Any], ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    estimated_usd: float = 0.0
    pipeline_execution_arn: str | None = None
    dataset_version: str | None = None
    model_packages: tuple[Mapping[str, Any], ...] = ()
    costless: bool = False
    trained: bool = False
    billed_usd: float | None = None
    spot_savings_percent: float | None = None

    @property
    def sort_key(self) -> str:
        """The item's ``sk``."""
        return decision_key(self.at, self.execution)

    def to_map(self) -> dict[str, Any]:
        """Return the item's attributes, keys aside."""
        billed = {"billedUsd": self.billed_usd, "spotSavingsPercent": self.spot_savings_percent}
        return {
            "at": self.at,
            "execution": self.execution,
            "generation": self.generation,
            "outcome": self.outcome,
            "reason": self.reason,
            "message": self.message,
            "triggers": [dict(trigger) for trigger in self.triggers],
            "rules": [dict(rule) for rule in self.rules],
            "evidence": dict(self.evidence),
            "estimatedUsd": self.estimated_usd,
            "pipelineExecutionArn": self.pipeline_execution_arn,
            "datasetVersion": self.dataset_version,
            "modelPackages": [dict(package) for package in self.model_packages],
            **({"costless": True} if self.costless else {}),
            **({"trained": True} if self.trained else {}),
            **{name: amount for name, amount in billed.items() if amount is not None},
        }


@dataclass(frozen=True)
class StepResult:
    """One step of a pipeline execution, as far as a decision needs it.

    `job_arn` names the training job that it has made, and `job` is what that came to; None when it could not
    be read.
    """

    name: str
    status: str
    failure_reason: str
    model_package_arn: str | None = None
    job_arn: str | None = None
    job: TrainingJob | None = None

    @property
    def lacked_instances(self) -> bool:
        """Whether it ended because it got no instance, and its training job, if it made one, never had any.

        A spot job that had some for hours may end with the same words, so the words alone prove nothing.
        """
        if self.job_arn is None:
            return lacked_instances(self.failure_reason)
        if self.job is None or self.job.had_instances:
            return False
        return self.job.waited_in_vain or lacked_instances(self.failure_reason)

    @property
    def ending(self) -> str:
        """Why it failed, in words; empty when it does not say."""
        if self.job is not None and self.job.waited_in_vain:
            return f"no spot instance came within MaxWaitSeconds ({self.job.secondary_status})"
        return self.failure_reason


def judge_failure(steps: tuple[StepResult, ...], failure_reason: str) -> tuple[str, str]:
    """Say what a failed pipeline run came to, and why in words.

    The gate is a step of its own: when it failed, both models were trained and neither was good enough,
    which is a result. Any other failed step is a failure.
    """
    failed = failed_steps(steps)
    gate = next((step for step in failed if step.name == GATE_STEP), None)
    if gate is not None and len(failed) == 1:
        return REJECTED_BY_GATE, gate.failure_reason or "no candidate is good enough"
    if not failed:
        return FAILED, failure_reason or "the pipeline failed without naming a step"
    return FAILED, "; ".join(f"step {step.name} failed: {step.ending or 'no reason'}" for step in failed)


def failed_steps(steps: Iterable[StepResult]) -> tuple[StepResult, ...]:
    """Return the steps that failed; one that was stopped has, when its job had waited in vain for instances.

    Nobody stopped that one, whatever the pipeline calls it.
    """
    return tuple(
        step
        for step in steps
        if step.status == STEP_FAILED
        or (step.status == STEP_STOPPED and step.job is not None and step.job.waited_in_vain)
    )


def lacked_instances(reason: str) -> bool:
    """Whether a step's failure reason says that it got no instance."""
    return any(words in reason for words in _NO_INSTANCES)


def is_costless(steps: Iterable[StepResult]) -> bool:
    """Whether a failed pipeline run has cost no GPU and so may be tried again by itself.

    The trainings run side by side: that one got no instance says nothing of the hours of the other. So every
    failed step must have got none, and no training may have come any further.
    """
    known = tuple(steps)
    failed = failed_steps(known)
    trained = any(step.name in TRAINING_STEPS and step not in failed for step in known)
    return bool(failed) and not trained and all(step.lacked_instances for step in failed)


@dataclass(frozen=True)
class Evaluation:
    """The part of evaluation.json that decides."""

    accuracies: Mapping[str, float]
    recommended: str | None
    reason: str

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Evaluation:
        """Read evaluation.json.

        Raises
        ------
        DatasetInvalid
            When the file is not an evaluation of a known version.
        """
        try:
            value = json.loads(content)
            require_version(value, EVALUATION_VERSIONS)
            models = {name: model for name, model in value["models"].items() if model}
            recommendation = value["recommendation"]
            return cls(
                accuracies={name: float(model["accuracy"]) for name, model in models.items()},
                recommended=recommendation["candidate"],
                reason=str(recommendation["reason"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetInvalid(f"{where} is not an evaluation.json of version 1 or 2: {error!r}") from error

    def metadata(self, candidate: str) -> dict[str, str]:
        """Return what is written on a candidate's package."""
        accuracy = self.accuracies.get(candidate)
        return {
            "recommended": "true" if candidate == self.recommended else "false",
            **({} if accuracy is None else {"accuracy": f"{accuracy:.4f}"}),  # a value is never empty
            "reason": metadata_value(self.reason),
        }


def shorten(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters, visibly."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def metadata_value(text: str) -> str:
    """Return `text` as SageMaker takes it in a package's metadata; evaluation.json has it as it was.

    A value is 1 to 256 letters, digits, blanks and ``_.:/=+-@``: one bracket, and UpdateModelPackage refuses
    the whole request (CustomerMetadataValue in the API reference).
    """
    for sign, spelt in _SPELT_IN_METADATA.items():
        text = text.replace(sign, spelt)
    allowed = " ".join(_REFUSED_IN_METADATA.sub(" ", text).split())
    return allowed[:MAXIMUM_METADATA_VALUE].rstrip() or "none"
