"""The accuracy of a model in service, from few and biased labels: pure rules.

Users tend to label what is wrong. Accuracy over labelled records alone would then say how wrong the mistakes
are. So the estimate names how it was made, and too few labels are *insufficient evidence*, never health.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.scoring import wilson

AUDIT_SAMPLE = "audit_sample"
CORRECTIONS_UPPER_BOUND = "corrections_upper_bound"
INSUFFICIENT_EVIDENCE = "insufficient_evidence"


@dataclass(frozen=True)
class Observations:
    """What a window holds: captured predictions, and of those with a label how many are right."""

    captured: int
    labelled: int
    labelled_right: int
    audited: int
    audited_right: int


@dataclass(frozen=True)
class Estimate:
    """An accuracy with its 95 % interval (audit sample only); both ``None`` without enough evidence."""

    estimator: str
    accuracy: float | None
    interval: tuple[float, float] | None
    labels: int

    def violates(self, threshold: float) -> bool:
        """Say whether the accuracy is below ``threshold``, beyond the doubt that the interval leaves."""
        if self.accuracy is None:
            return False
        return (self.interval[1] if self.interval else self.accuracy) < threshold


def estimate(seen: Observations, minimum_labels: int) -> Estimate:
    """Estimate the accuracy over a window.

    With at least ``minimum_labels`` audit labels (drawn whether right or wrong): the accuracy over them with
    its Wilson interval. Else, with that many labels of any source: ``1 - wrong / captured``. An unlabelled
    prediction is presumed right, so the truth can only be lower. Else no estimate.
    """
    if seen.audited and seen.audited >= minimum_labels:
        interval = wilson(seen.audited_right, seen.audited)
        return Estimate(AUDIT_SAMPLE, seen.audited_right / seen.audited, interval, seen.audited)
    if seen.labelled and seen.labelled >= minimum_labels:
        wrong = seen.labelled - seen.labelled_right
        return Estimate(CORRECTIONS_UPPER_BOUND, 1 - wrong / seen.captured, None, seen.labelled)
    return Estimate(INSUFFICIENT_EVIDENCE, None, None, seen.labelled)
