"""Service Quotas for SageMaker's training instances; moto knows those of VPC only.

Every type that CreateTrainingJob takes has its quotas "<type> for training job usage" and "<type> for spot
training job usage", and the account's are generous. ``TRUTHLOOP_LOCAL_QUOTAS`` sets others for both, as JSON:
``{"ml.p3.8xlarge": 0, "ml.g5.12xlarge": null}`` (``null``: the region does not offer it). SageMaker's other
quotas are not there, and of other services only what moto has; asking for one that is not there is an error,
as on AWS.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import botocore.session
from moto.core.exceptions import JsonRESTError
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse

from local.context import LocalAws

SETTING = "TRUTHLOOP_LOCAL_QUOTAS"
GENEROUS = 16.0
LARGEST_PAGE = 100

Quota = dict[str, Any]


class IllegalArgumentError(JsonRESTError):
    """A parameter that Service Quotas does not take."""

    def __init__(self, message: str) -> None:
        super().__init__("IllegalArgumentException", message)


class InvalidPaginationTokenError(JsonRESTError):
    """A token that no answer has given out."""

    def __init__(self) -> None:
        super().__init__("InvalidPaginationTokenException", "Invalid token for pagination.")


def install(_: LocalAws) -> None:
    """Let the two lists and GetServiceQuota know SageMaker's training quotas."""
    of_moto = {
        "list_aws_default_service_quotas": ServiceQuotasResponse.list_aws_default_service_quotas,
        "get_service_quota": ServiceQuotasResponse.get_service_quota,
    }
    ServiceQuotasResponse.list_service_quotas = _listing(None)
    ServiceQuotasResponse.list_aws_default_service_quotas = _listing(
        of_moto["list_aws_default_service_quotas"]
    )
    ServiceQuotasResponse.get_service_quota = _getting(of_moto["get_service_quota"])


def _listing(original: Callable[[Any], str] | None) -> Callable[[Any], str]:
    def method(self: Any) -> str:
        params = json.loads(self.body)
        if params.get("ServiceCode") != "sagemaker":
            if original is None:
                raise NoSuchResource
            return original(self)
        quotas = training_quotas(self.region, self.current_account)
        code = params.get("QuotaCode")
        if code is not None:
            quotas = [quota for quota in quotas if quota["QuotaCode"] == code]
        return json.dumps(_page(quotas, params))

    return method


def _getting(original: Callable[[Any], str]) -> Callable[[Any], str]:
    def method(self: Any) -> str:
        params = json.loads(self.body)
        if params.get("ServiceCode") != "sagemaker":
            return original(self)
        for quota in training_quotas(self.region, self.current_account):
            if quota["QuotaCode"] == params.get("QuotaCode"):
                return json.dumps({"Quota": quota})
        raise NoSuchResource

    return method


def _page(quotas: list[Quota], params: dict[str, Any]) -> dict[str, Any]:
    size = params.get("MaxResults", LARGEST_PAGE)
    if not isinstance(size, int) or not 1 <= size <= LARGEST_PAGE:
        raise IllegalArgumentError(f"MaxResults must be between 1 and {LARGEST_PAGE}")
    token = params.get("NextToken", "0")
    if not str(token).isdecimal() or int(token) > len(quotas):
        raise InvalidPaginationTokenError
    end = int(token) + size
    answer: dict[str, Any] = {"Quotas": quotas[int(token) : end]}
    if end < len(quotas):
        answer["NextToken"] = str(end)
    return answer


def training_quotas(region: str, account: str) -> list[Quota]:
    """Return the quotas of all training instance types, by name."""
    chosen: dict[str, float | None] = json.loads(os.environ.get(SETTING, "{}"))
    values = {kind: chosen.get(kind, GENEROUS) for kind in _training_types()}
    return [
        _quota(f"{kind} for {usage}", value, region, account)
        for kind, value in sorted(values.items())
        for usage in ("spot training job usage", "training job usage")
        if value is not None
    ]


@cache
def _training_types() -> tuple[str, ...]:
    model = botocore.session.get_session().get_service_model("sagemaker")
    kinds: Any = model.shape_for("TrainingInstanceType")
    return tuple(kinds.enum)


def _quota(name: str, value: float, region: str, account: str) -> Quota:
    code = f"L-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
    return {
        "ServiceCode": "sagemaker",
        "ServiceName": "Amazon SageMaker",
        "QuotaArn": f"arn:aws:servicequotas:{region}:{account}:sagemaker/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": float(value),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
        "QuotaAppliedAtLevel": "ACCOUNT",
    }
