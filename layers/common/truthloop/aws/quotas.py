"""The account's quota for training instances, and how much of it is in use.

Service Quotas names each type's quota "<type> for training job usage" (spot training has its own) and gives
it a code that is documented nowhere, so the list is read until the name is found, once per quarter of an hour
and process. The list of applied quotas leaves out what has only a default: that is asked for second.
"""

from __future__ import annotations

import time
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import AwsRequestFailed, TransientAwsError
from truthloop.instances.capacity import QuotaReading, quota_name

_SERVICE = "sagemaker"
_REMEMBERED_SECONDS = 900.0
_FAILURES = (AwsRequestFailed, TransientAwsError)
"""A quota that cannot be read, for lack of a right or of a route, must not keep a team from training:
SageMaker refuses a job that is beyond it by itself."""


class ServiceQuotas:
    """Implements ``ports.Quotas``.

    Parameters
    ----------
    quotas, sagemaker
        Clients of Service Quotas and SageMaker.
    """

    def __init__(self, quotas: Any, sagemaker: Any) -> None:
        self._quotas = quotas
        self._sagemaker = sagemaker
        self._known: dict[str, tuple[float, float | None]] = {}

    def read(self, instance_type: str, needed: int, *, spot: bool) -> QuotaReading:
        """Read the quota for `instance_type`, and how much is in use as far as it matters for `needed`."""
        try:
            limit = self._limit(quota_name(instance_type, spot=spot))
        except _FAILURES as error:
            return QuotaReading(None, None, str(error))
        if limit is None or limit < needed:
            return QuotaReading(limit, 0)
        try:
            return QuotaReading(limit, self._in_use(instance_type, limit - needed, spot))
        except _FAILURES as error:
            return QuotaReading(limit, None, str(error))

    def _limit(self, name: str) -> float | None:
        read_at, limit = self._known.get(name, (float("-inf"), None))
        if time.monotonic() - read_at < _REMEMBERED_SECONDS:
            return limit
        limit = self._find("list_service_quotas", name)
        if limit is None:
            limit = self._find("list_aws_default_service_quotas", name)
        self._known[name] = time.monotonic(), limit
        return limit

    def _find(self, operation: str, name: str) -> float | None:
        with translated():
            pages = self._quotas.get_paginator(operation).paginate(
                ServiceCode=_SERVICE, PaginationConfig={"PageSize": 100}
            )
            for page in pages:
                for quota in page["Quotas"]:
                    if quota["QuotaName"] == name and quota.get("Value") is not None:
                        return float(quota["Value"])
        return None

    def _in_use(self, instance_type: str, spare: float, spot: bool) -> int:
        """Count instances in training jobs in progress; beyond `spare` it does not matter how many."""
        used = 0
        with translated():
            pages = self._sagemaker.get_paginator("list_training_jobs").paginate(StatusEquals="InProgress")
            for page in pages:
                for summary in page["TrainingJobSummaries"]:
                    name = summary["TrainingJobName"]
                    job = self._sagemaker.describe_training_job(TrainingJobName=name)
                    if bool(job.get("EnableManagedSpotTraining")) is not spot:
                        continue
                    used += _instances(job.get("ResourceConfig") or {}, instance_type)
                    if used > spare:
                        return used
        return used


def _instances(resources: Any, instance_type: str) -> int:
    groups = resources.get("InstanceGroups") or [resources]
    return sum(int(g.get("InstanceCount") or 0) for g in groups if g.get("InstanceType") == instance_type)
