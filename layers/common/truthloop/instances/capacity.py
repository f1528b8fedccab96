"""Whether the account may start the training jobs: its quota for the instance type, less what trains now.

Whether AWS *has* such instances at the moment cannot be asked in advance; a run that failed for lack of them
is recognised by its steps (``truthloop.retraining.decision.is_costless``), and the cool-down is the time
until the next attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from truthloop.instances.hardware import SUCCESSORS


@dataclass(frozen=True)
class QuotaReading:
    """What Service Quotas and SageMaker say of an instance type.

    Parameters
    ----------
    limit : float or None
        Instances that training jobs may use at the same time; None when there is no such quota in the
        region: the type is not offered.
    in_use : int or None
        Instances of the type in training jobs that are in progress, counted until it is clear that the quota
        does not suffice; None when it could not be read.
    problem : str
        Why something could not be read; empty when all could.
    """

    limit: float | None
    in_use: int | None
    problem: str = ""


def quota_name(instance_type: str, *, spot: bool) -> str:
    """Return the name that Service Quotas has for an instance type's training quota; spot has its own."""
    return f"{instance_type} for {'spot ' if spot else ''}training job usage"


def judge_quota(
    reading: QuotaReading, instance_type: str, needed: int, *, spot: bool = False
) -> tuple[bool, str]:
    """Say whether `needed` more instances fit into the quota, and what to do when not."""
    if reading.problem and reading.limit is None:
        return True, f"the quota could not be read ({reading.problem}); SageMaker itself will say"
    name = quota_name(instance_type, spot=spot)
    ways = (
        f'ask for an increase of the quota "{name}" in Service Quotas, or set the parameter '
        f"TrainingInstanceType to a type with four GPUs: {', '.join(_others(instance_type))}"
    )
    if spot:
        ways += ", or set UseSpotTraining to false"
    kind = "spot training" if spot else "training"
    if reading.limit is None:
        return False, f"{instance_type} is not offered for {kind} in this region; {ways}"
    if reading.limit <= 0:
        return False, f"the account's quota for {instance_type} in {kind} jobs is 0; {ways}"
    used = reading.in_use or 0
    found = f"the quota is {reading.limit:g} {instance_type} in {kind} jobs"
    found += (
        f", how many train now could not be read ({reading.problem})"
        if reading.in_use is None
        else f", {used} of them in use"
    )
    if used + needed <= reading.limit:
        return True, f"{found}, {needed} are needed"
    waits = "wait until other training jobs have ended, " if needed <= reading.limit else ""
    return False, f"{found}, and {needed} are needed at the same time; {waits}{ways}"


def _others(instance_type: str) -> list[str]:
    return [name for name in SUCCESSORS if name != instance_type]
