"""CloudWatch metrics of endpoints: counted per request, put once a second."""

from __future__ import annotations

import inspect
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from moto.cloudwatch.models import CloudWatchBackend

from local.context import LocalAws

log = logging.getLogger("local.sagemaker")

NAMESPACE = "AWS/SageMaker"
PUT_SECONDS = 1.0
_UNITS = {"ModelLatency": "Microseconds", "OverheadLatency": "Microseconds"}

Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass
class Statistic:
    """The samples of one second: as a statistic set, and latencies also by value for percentiles."""

    count: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    values: Counter[float] = field(default_factory=Counter)

    def add(self, value: float, *, keep: bool) -> None:
        """Take one sample in."""
        self.count += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        if keep:
            self.values[float(f"{value:.3g}")] += 1

    def data(self) -> list[dict[str, Any]]:
        """Return what a PutMetricData datum says of the samples."""
        items = list(self.values.items())
        if items:
            return [
                {
                    "Values": [value for value, _ in items[start : start + 150]],
                    "Counts": [float(count) for _, count in items[start : start + 150]],
                }
                for start in range(0, len(items), 150)
            ]
        statistic = {"SampleCount": self.count, "Sum": self.total, "Minimum": self.low, "Maximum": self.high}
        return [{"StatisticValues": statistic}]


def match_dimensions_exactly() -> None:
    """Make GetMetricStatistics match dimensions as CloudWatch does.

    moto takes every metric that has *at least* the dimensions asked for. Endpoint metrics come with
    and without EndpointConfigName, so each request would count twice.
    """
    original = CloudWatchBackend.get_metric_statistics

    def exact(self: Any, *args: Any, **kwargs: Any) -> Any:
        dimensions = inspect.signature(original).bind(self, *args, **kwargs).arguments["dimensions"]
        count = len(dimensions or [])
        same = SimpleNamespace(
            get_all_metrics=lambda: [m for m in self.get_all_metrics() if len(m.dimensions) == count]
        )
        return original(same, *args, **kwargs)

    CloudWatchBackend.get_metric_statistics = exact


class MetricBatcher:
    """Collects samples and puts them once a second.

    Counts go as statistic sets: moto keeps one object per value for the life of the server.
    """

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._samples: dict[Key, Statistic] = {}
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        threading.Thread(target=self._run, name="sagemaker-metrics", daemon=True).start()

    def add(
        self, region: str, dimension_sets: list[tuple[tuple[str, str], ...]], values: Mapping[str, float]
    ) -> None:
        """Count one request's values under each set of dimensions."""
        with self._lock:
            for dimensions in dimension_sets:
                for name, value in values.items():
                    self._samples.setdefault((region, name, dimensions), Statistic()).add(
                        value, keep=name in _UNITS
                    )

    def flush(self) -> None:
        """Put what was collected."""
        with self._flush_lock:
            with self._lock:
                samples, self._samples = self._samples, {}
            data: dict[str, list[dict[str, Any]]] = {}
            for (region, name, dimensions), sample in samples.items():
                for values in sample.data():
                    datum = {
                        "MetricName": name,
                        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
                        "Unit": _UNITS.get(name, "Count"),
                        **values,
                    }
                    data.setdefault(region, []).append(datum)
            for region, items in data.items():
                for start in range(0, len(items), 20):
                    self._aws.client("cloudwatch", region).put_metric_data(
                        Namespace=NAMESPACE, MetricData=items[start : start + 20]
                    )

    def _run(self) -> None:
        while not self._aws.stopping.wait(PUT_SECONDS):
            try:
                self.flush()
            except Exception:
                if not self._aws.stopping.is_set():
                    log.exception("endpoint metrics were not put")
