"""What a training job says of the money that it cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_policy_rules import POLICY
from truthloop.retraining.bill import Bill, bill
from truthloop.retraining.decision import FAILED, StepResult, is_costless, judge_failure
from truthloop.retraining.training_job import TrainingJob

IN_VAIN = TrainingJob(
    secondary_status="MaxWaitTimeExceeded",
    phases=frozenset({"Starting", "Stopping", "MaxWaitTimeExceeded"}),
    started=False,
    instance_type="ml.p3.8xlarge",
    instances=1,
    spot=True,
    training_seconds=None,
    billable_seconds=None,
)
TRAINED = replace(
    IN_VAIN,
    secondary_status="Completed",
    phases=frozenset({"Starting", "Downloading", "Training", "Uploading", "Completed"}),
    started=True,
    training_seconds=36_000,
    billable_seconds=9_000,
)
NO_CAPACITY = "ClientError: CapacityError: Unable to provision requested ML compute capacity."


def step(
    job: TrainingJob | None, status: str = "Failed", reason: str = "", name: str = "TrainNew"
) -> StepResult:
    return StepResult(name, status, reason, job_arn=f"arn:{name}", job=job)


def test_a_job_that_waited_in_vain_for_spot_instances_had_none() -> None:
    assert IN_VAIN.waited_in_vain
    assert not IN_VAIN.had_instances
    assert not replace(IN_VAIN, billable_seconds=0, training_seconds=0).had_instances


@pytest.mark.parametrize(
    "job",
    [
        replace(IN_VAIN, started=True),
        replace(IN_VAIN, billable_seconds=1),
        replace(IN_VAIN, training_seconds=1),
        replace(IN_VAIN, phases=IN_VAIN.phases | {"Downloading"}),
        replace(IN_VAIN, phases=IN_VAIN.phases | {"Interrupted"}),
        replace(IN_VAIN, phases=IN_VAIN.phases | {"A Status Of Tomorrow"}),
    ],
)
def test_whatever_speaks_for_instances_means_that_it_has_cost(job: TrainingJob) -> None:
    assert job.had_instances
    assert not is_costless([step(job)])
    assert not is_costless([step(job, "Stopped")])
    assert not is_costless([step(job, reason=NO_CAPACITY)])


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_run_is_costless_whose_jobs_waited_in_vain_whatever_the_pipeline_calls_it(status: str) -> None:
    prepared = StepResult("Prepare", "Succeeded", "")
    old, new = (step(IN_VAIN, status, name=name) for name in ("TrainOld", "TrainNew"))
    assert is_costless([prepared, old, new])
    assert judge_failure((prepared, old, new), "") == (
        FAILED,
        "step TrainOld failed: no spot instance came within MaxWaitSeconds (MaxWaitTimeExceeded); "
        "step TrainNew failed: no spot instance came within MaxWaitSeconds (MaxWaitTimeExceeded)",
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (step(replace(IN_VAIN, secondary_status="Failed"), reason=NO_CAPACITY), True),
        (StepResult("TrainNew", "Failed", NO_CAPACITY), True),  # the job was never made
        (step(TRAINED, "Succeeded"), False),
        (step(None, reason=NO_CAPACITY), False),  # what it came to could not be read
        (step(None, "Stopped"), False),
        # Nothing was paid, but it was no lack of instances: it would end so again, or somebody wanted it.
        (step(replace(IN_VAIN, secondary_status="Failed"), reason="no image"), False),
        (step(replace(IN_VAIN, secondary_status="Stopped"), "Stopped"), False),
    ],
)
def test_one_job_that_waited_in_vain_says_nothing_of_the_other(other: StepResult, expected: bool) -> None:
    assert is_costless([step(IN_VAIN, name="TrainOld"), other]) is expected


def test_the_bill_is_the_billable_seconds_of_all_instances() -> None:
    both = [step(replace(TRAINED, instances=2), "Succeeded"), step(TRAINED, "Succeeded", name="TrainOld")]
    # 2.5 hours of three instances at 14.688 USD; AWS has the discount in the seconds
    assert bill(both, POLICY) == Bill(usd=110.16, spot_savings_percent=75.0)


def test_savings_are_weighed_by_what_was_trained_and_on_demand_saves_nothing() -> None:
    on_demand = replace(TRAINED, spot=False, billable_seconds=36_000)
    assert bill([step(on_demand)], POLICY) == Bill(usd=146.88)
    full = replace(TRAINED, training_seconds=4_000, billable_seconds=3_000)
    assert bill([step(TRAINED), step(full), step(on_demand)], POLICY).spot_savings_percent == 70.0


def test_a_named_price_is_that_of_the_type_it_was_named_for() -> None:
    named = replace(POLICY, instance_price_usd=4.0)
    other = replace(TRAINED, instance_type="ml.g4dn.12xlarge", billable_seconds=3_600)
    assert bill([step(TRAINED)], named).usd == 10.0
    assert bill([step(other)], named).usd == 4.89


@pytest.mark.parametrize(
    "job",
    [
        None,
        replace(TRAINED, billable_seconds=None),
        replace(TRAINED, instance_type="ml.p99.large"),
    ],
)
def test_what_is_not_known_is_no_amount(job: TrainingJob | None) -> None:
    assert bill([step(TRAINED), step(job, name="TrainOld")], POLICY).usd is None


def test_what_never_trained_is_billed_nothing_and_a_run_without_steps_says_nothing() -> None:
    assert bill([step(IN_VAIN)], POLICY) == Bill(usd=0.0)
    assert bill([StepResult("Prepare", "Failed", "base/ is empty")], POLICY) == Bill(usd=0.0)
    assert bill([], POLICY) == Bill()
