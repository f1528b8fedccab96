"""CloudWatch metrics of endpoints: counted per request, put once a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.context import LocalAws

log = logging.getLogger("local.sagemaker")

NAMESPACE = "AWS/SageMaker"
PUT_SECONDS = 1.0
_UNITS = {"ModelLatency": "Microseconds", "OverheadLatency": "Microseconds"}

Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass
class Statistic:
    """Count, sum and extremes of the samples of one second."""

    count: int = 0
    total: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def add(self, value: float) -> None:
        """Take one sample in."""
        self.count += 1
        self.total += value
        self.low = min(self.low, value)
        self.high = max(self.high, value)


class MetricBatcher:
    """Sums up samples and puts one statistic set per metric and second.

    A statistic set, not the values: moto keeps one object per value for the life of the server.
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
                    self._samples.setdefault((region, name, dimensions), Statistic()).add(value)

    def flush(self) -> None:
        """Put what was collected."""
        with self._flush_lock:
            with self._lock:
                samples, self._samples = self._samples, {}
            data: dict[str, list[dict[str, Any]]] = {}
            for (region, name, dimensions), sample in samples.items():
                data.setdefault(region, []).append(
                    {
                        "MetricName": name,
                        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
                        "Unit": _UNITS.get(name, "Count"),
                        "StatisticValues": {
                            "SampleCount": sample.count,
                            "Sum": sample.total,
                            "Minimum": sample.low,
                            "Maximum": sample.high,
                        },
                    }
                )
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
