"""CloudWatch data points, kept so that an alarm's view of them is cheap to compute."""

from __future__ import annotations

import bisect
import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

Key = tuple[str, str, tuple[tuple[str, str], ...]]
"""Namespace, metric name, sorted dimensions: what identifies one metric."""

_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")


class UnsupportedStatisticError(ValueError):
    """A statistic that the embedded AWS does not compute."""


@dataclass(frozen=True)
class Sample:
    """One value, or one statistic set, as it was put.

    Attributes
    ----------
    time
        Seconds since the epoch.
    """

    time: float
    minimum: float
    maximum: float
    total: float
    count: float
    unit: str


def check_statistic(name: str) -> None:
    """Raise :class:`UnsupportedStatisticError` unless ``name`` can be computed."""
    if name not in STATISTICS and not _PERCENTILE.fullmatch(name):
        raise UnsupportedStatisticError(
            f"The value {name} for a statistic is not supported; use one of {', '.join(STATISTICS)} "
            "or a percentile such as p90"
        )


def aggregate(samples: list[Sample], statistic: str) -> float | None:
    """Return ``statistic`` over ``samples``; ``None`` where CloudWatch would have no data point."""
    count = sum(sample.count for sample in samples)
    if not samples or not count:
        return None
    if statistic == "SampleCount":
        return count
    if statistic == "Sum":
        return sum(sample.total for sample in samples)
    if statistic == "Average":
        return sum(sample.total for sample in samples) / count
    if statistic == "Minimum":
        return min(sample.minimum for sample in samples)
    if statistic == "Maximum":
        return max(sample.maximum for sample in samples)
    return _percentile(samples, float(statistic[1:]))


def _percentile(samples: list[Sample], percent: float) -> float | None:
    # A statistic set has no percentiles, unless all its values are the same.
    if any(sample.minimum != sample.maximum for sample in samples):
        return None
    ordered = sorted(samples, key=lambda sample: sample.minimum)
    rank = max(1, math.ceil(percent / 100 * sum(sample.count for sample in ordered)))
    seen = 0.0
    for sample in ordered:
        seen += sample.count
        if seen >= rank:
            return sample.minimum
    return ordered[-1].minimum


class MetricStore:
    """Samples by metric, in order of time; safe to use from several threads."""

    def __init__(self) -> None:
        self._samples: dict[Key, list[Sample]] = defaultdict(list)
        self._lock = threading.Lock()

    def add(self, samples: Iterable[tuple[Key, Sample]]) -> set[Key]:
        """Insert samples, late ones at their place; return the metrics that they belong to."""
        touched: set[Key] = set()
        with self._lock:
            for key, sample in samples:
                bisect.insort(self._samples[key], sample, key=_time)
                touched.add(key)
        return touched

    def bucket(self, key: Key, start: float, seconds: float, unit: str | None) -> list[Sample]:
        """Return the samples of ``key`` in ``[start, start + seconds)``, of one unit when one is given."""
        with self._lock:
            samples = self._samples.get(key, [])
            low = bisect.bisect_left(samples, start, key=_time)
            high = bisect.bisect_left(samples, start + seconds, key=_time)
            found = samples[low:high]
        return [sample for sample in found if unit is None or sample.unit == unit]


def _time(sample: Sample) -> float:
    return sample.time
