"""Policy before money: gather the evidence and judge it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, TypedDict

from truthloop.inputs import HeldInput
from truthloop.ports import Ports
from truthloop.retraining import policy
from truthloop.retraining.claim import GenerationRecord, require_claim
from truthloop.retraining.evidence import CONFLICTS_SHOWN, Evidence
from truthloop.retraining.policy import Verdict
from truthloop.serving.registry import ModelPackage
from truthloop.settings import PolicySettings
from truthloop.steps.evidence import Fold, champion_of, fold_labels
from truthloop.steps.failed_run import News, count_news, read_failure
from truthloop.steps.known_labels import read_model_labels
from truthloop.times import from_iso
from truthloop.versions.labels import changed

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
    """Say whether the claimed generation starts a run, or waits for captures that are on their way.

    Parameters
    ----------
    event : object
        ``execution`` and ``generation`` of the claim.
    ports : Ports
        The outside world.

    Raises
    ------
    InvalidEvent
        When the event is not that.
    ClaimLost
        When the execution does not hold the claim.
    """
    given = HeldInput.parse(event)
    record = require_claim(ports.table.read(), given.execution, given.generation)
    settings, now = ports.settings.policy, ports.now()
    evidence, verdict = _judge(record, settings, now, ports)
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "message": verdict.message,
        "rules": [outcome.to_map() for outcome in verdict.outcomes],
        "evidence": evidence.to_map(),
        "estimatedUsd": verdict.estimated_usd,
        "approval": settings.approval,
    }


def _judge(
    record: GenerationRecord, settings: PolicySettings, now: datetime, ports: Ports
) -> tuple[Evidence, Verdict]:
    started = record.starting is not None
    evidence = _gather(record, settings, now, ports)
    verdict = policy.judge(evidence, settings, now, already_started=started)
    if verdict.verdict == policy.REFUSE or started:
        # Most looks end here, and the quota takes dozens of calls: nobody asks for it without need.
        return evidence, verdict
    quota = ports.quotas.read(
        settings.training_instance_type, policy.instances_needed(settings), spot=settings.use_spot_training
    )
    evidence = replace(evidence, quota=quota)
    return evidence, policy.judge(evidence, settings, now)


def _gather(record: GenerationRecord, settings: PolicySettings, now: datetime, ports: Ports) -> Evidence:
    fold = fold_labels(ports, record, now)
    new = changed(fold.before, fold.labels)
    endpoint = ports.endpoint.state()
    champion = champion_of(endpoint, ports)
    served_since = endpoint.last_modified if endpoint else None
    trained = record.last_run == record.last_trained
    evidence = Evidence(
        triggers=tuple(record.triggers.values()),
        new_labels=sum(new.values()),
        new_per_label=new,
        dataset_version=fold.dataset_version,
        last_run=record.last_run,
        champion=champion.arn if champion else None,
        pending_candidate=_pending_candidate(record, champion, ports),
        spent_this_month_usd=ports.table.spent_usd(now.strftime("%Y-%m")),
        last_run_trained=trained,
        last_failure=None
        if trained or not record.last_run
        else read_failure(record.last_run, ports.pipeline, ports.jobs),
        waiting_per_label=changed(fold.before, fold.waiting),
        conflicts=tuple(islice(sorted(fold.conflicts), CONFLICTS_SHOWN)),
        conflict_count=len(fold.conflicts),
        over_share=sum(fold.over_share.values()),
        expired=fold.expired,
        forgotten=fold.forgotten,
        classes=read_model_labels(champion, ports.objects).labels
        if settings.minimum_new_labels_per_class > 0
        else None,
        champion_registered_at=champion.created_at if champion else None,
        last_trained_at=from_iso(record.last_trained.started_at) if record.last_trained else None,
        served_since=served_since,
        alarm=ports.alarms.read(settings.accuracy_alarm_name, served_since, now)
        if served_since is not None and settings.accuracy_alarm_name
        else None,
        claimed_at=from_iso(record.claimed_at) if record.claimed_at else None,
        forced_start_waits=any(trigger.force for trigger in record.pending.values()),
    )
    news = _news(evidence, settings, fold, ports)
    if news is None:
        return evidence
    return replace(evidence, news_since_failure=news.labels, waiting_since_failure=news.waiting)


def _news(evidence: Evidence, settings: PolicySettings, fold: Fold, ports: Ports) -> News | None:
    """Count what a run that failed did not train on, when that decides: its whole dataset has to be read."""
    last, failure = evidence.last_run, evidence.last_failure
    if last is None or failure is None or failure.costless or evidence.new_code(settings):
        return None
    if fold.dataset_version == last.dataset_version:
        return News(0, len(fold.waiting))
    return count_news(ports.objects, last, fold.labels, fold.waiting)


def _pending_candidate(record: GenerationRecord, champion: ModelPackage | None, ports: Ports) -> str | None:
    if record.last_run is None:
        return None
    if champion is not None and champion.generation == record.last_run.generation:
        return None  # somebody has chosen between the run's candidates: nothing waits any more
    for package in ports.registry.newest_pending(_PENDING_LOOKED_AT):
        if package.generation == record.last_run.generation and package.recommended:
            return package.arn
    return None
