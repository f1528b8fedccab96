"""Policy before money: gather the evidence and judge it."""

from __future__ import annotations

from typing import Any, TypedDict

from truthloop import policy
from truthloop.claim import GenerationRecord, require_claim
from truthloop.inputs import HeldInput
from truthloop.labels import changed
from truthloop.policy import Evidence
from truthloop.ports import Ports
from truthloop.registry import ModelPackage
from truthloop.steps.evidence import find_champion, fold_labels

_PENDING_LOOKED_AT = 4  # a run registers two packages


class PreflightOutput(TypedDict):
    """The verdict, with all that it rests on."""

    verdict: str
    reason: str
    message: str
    rules: list[dict[str, Any]]
    evidence: dict[str, Any]
    estimatedUsd: float
    approval: str


def preflight_run(event: object, ports: Ports) -> PreflightOutput:
    """Say whether the claimed generation starts a run.

    Parameters
    ----------
    event : object
        ``execution`` and ``generation`` of the claim.
    ports : Ports
        The outside world.

    Raises
    ------
    ClaimLost
        When the execution does not hold the claim.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = HeldInput.parse(event)
    record = require_claim(ports.table.read(), given.execution, given.generation)
    settings = ports.settings.policy
    evidence = _gather(record, ports)
    verdict = policy.judge(evidence, settings, ports.now(), already_started=record.starting is not None)
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "message": verdict.message,
        "rules": [outcome.to_map() for outcome in verdict.outcomes],
        "evidence": evidence.to_map(),
        "estimatedUsd": verdict.estimated_usd,
        "approval": settings.approval,
    }


def _gather(record: GenerationRecord, ports: Ports) -> Evidence:
    fold = fold_labels(ports, record, ports.now())
    new = changed(fold.before, fold.labels)
    champion = find_champion(ports)
    return Evidence(
        triggers=tuple(record.triggers.values()),
        new_labels=sum(new.values()),
        new_per_label=new,
        dataset_version=fold.dataset_version,
        last_run=record.last_run,
        champion=champion.arn if champion else None,
        pending_candidate=_pending_candidate(record, champion, ports),
        spent_this_month_usd=ports.table.spent_usd(ports.now().strftime("%Y-%m")),
        last_run_trained=record.last_run == record.last_trained,
    )


def _pending_candidate(record: GenerationRecord, champion: ModelPackage | None, ports: Ports) -> str | None:
    if record.last_run is None:
        return None
    if champion is not None and champion.generation == record.last_run.generation:
        return None  # somebody has chosen between the run's candidates: nothing waits any more
    for package in ports.registry.newest_pending(_PENDING_LOOKED_AT):
        if package.generation == record.last_run.generation and package.recommended:
            return package.arn
    return None
