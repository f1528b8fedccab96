"""What the training of a run was billed, which the estimate before it cannot know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from truthloop.instances.prices import price_per_hour
from truthloop.retraining.decision import StepResult
from truthloop.retraining.training_job import TrainingJob
from truthloop.settings import PolicySettings


@dataclass(frozen=True)
class Bill:
    """US dollars for the training jobs, and what spot instances saved of them; None is not known."""

    usd: float | None = None
    spot_savings_percent: float | None = None


def bill(steps: Iterable[StepResult], policy: PolicySettings) -> Bill:
    """Return what a run's training jobs were billed, as its ended steps name them.

    SageMaker bills ``BillableTimeInSeconds`` times ``InstanceCount``, of spot jobs too: their discount is in
    the seconds, which are fewer than those of the training, and the savings are one minus their ratio
    (DescribeTrainingJob in the API reference).
    """
    known = tuple(steps)
    jobs = [step.job for step in known if step.job_arn]
    if not known or None in jobs:
        return Bill()
    seen = [job for job in jobs if job]
    amounts = [_usd(job, policy) for job in seen]
    priced = [amount for amount in amounts if amount is not None]
    return Bill(
        usd=round(sum(priced), 2) if len(priced) == len(amounts) else None,
        spot_savings_percent=_savings(seen),
    )


def _usd(job: TrainingJob, policy: PolicySettings) -> float | None:
    if not job.had_instances:
        return 0.0
    # The named price is that of the type that is wanted today; a run before may have had another.
    named = policy.instance_price_usd if job.instance_type == policy.training_instance_type else 0.0
    price = price_per_hour(job.instance_type, named)
    if price is None or job.billable_seconds is None:
        return None
    return price * job.billable_seconds * job.instances / 3600


def _savings(jobs: list[TrainingJob]) -> float | None:
    spot = [job for job in jobs if job.spot and job.had_instances]
    trained = sum((job.training_seconds or 0) * job.instances for job in spot)
    if not trained or any(job.billable_seconds is None or job.training_seconds is None for job in spot):
        return None
    billed = sum((job.billable_seconds or 0) * job.instances for job in spot)
    return round(100 * (1 - billed / trained), 1)
