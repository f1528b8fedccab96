"""Service Quotas' answers about SageMaker's training instances."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.quotas import training_quotas
from truthloop.aws.quotas import ServiceQuotas
from truthloop.instances.hardware import FAMILIES, SUCCESSORS


@pytest.fixture(scope="module")
def quotas(server: Any) -> Any:
    return server.client("service-quotas")


def names(pages: Any) -> list[str]:
    return [quota["QuotaName"] for page in pages for quota in page["Quotas"]]


@pytest.mark.parametrize("operation", ["list_service_quotas", "list_aws_default_service_quotas"])
def test_every_type_with_gpus_has_its_quota_on_some_page(quotas: Any, operation: str) -> None:
    pages = list(quotas.get_paginator(operation).paginate(ServiceCode="sagemaker"))
    assert len(pages) > 1
    found = names(pages)
    assert found == sorted(set(found))
    for family, (_, sizes) in FAMILIES.items():
        for size in sizes:
            assert f"ml.{family}.{size} for training job usage" in found
    assert {quota["Value"] for page in pages for quota in page["Quotas"]} == {16.0}


def test_one_quota_is_found_by_its_code(quotas: Any) -> None:
    (first, *_) = quotas.list_service_quotas(ServiceCode="sagemaker", MaxResults=1)["Quotas"]
    assert quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode=first["QuotaCode"])["Quota"] == first
    listed = quotas.list_service_quotas(ServiceCode="sagemaker", QuotaCode=first["QuotaCode"])["Quotas"]
    assert listed == [first]
    assert first["QuotaArn"].endswith(f":123456789012:sagemaker/{first['QuotaCode']}")


@pytest.mark.parametrize(
    ("operation", "request_", "code"),
    [
        ("list_service_quotas", {"ServiceCode": "ec2"}, "NoSuchResourceException"),
        ("list_service_quotas", {"ServiceCode": "vpc"}, "NoSuchResourceException"),
        ("list_service_quotas", {"ServiceCode": "sagemaker", "NextToken": "nobody's"}, "InvalidPagination"),
        ("get_service_quota", {"ServiceCode": "sagemaker", "QuotaCode": "L-1"}, "NoSuchResourceException"),
    ],
)
def test_what_is_not_there_is_refused(
    quotas: Any, operation: str, request_: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError, match=code):
        getattr(quotas, operation)(**request_)


def test_what_moto_knows_of_other_services_stays(quotas: Any) -> None:
    assert quotas.list_aws_default_service_quotas(ServiceCode="vpc")["Quotas"]


def test_a_setting_makes_the_account_poor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUTHLOOP_LOCAL_QUOTAS", '{"ml.p3.8xlarge": 0, "ml.g5.12xlarge": null}')
    found = {quota["QuotaName"]: quota["Value"] for quota in training_quotas("us-east-1", "123456789012")}
    assert found["ml.p3.8xlarge for training job usage"] == 0
    assert "ml.g5.12xlarge for training job usage" not in found
    assert found["ml.g6.12xlarge for training job usage"] == 16


def test_the_functions_reader_finds_a_quota_on_its_page(server: Any, quotas: Any) -> None:
    reader = ServiceQuotas(quotas, server.client("sagemaker"))
    for instance_type in ("ml.c4.xlarge", *SUCCESSORS):
        reading = reader.read(instance_type, 2, spot=False)
        assert (reading.limit, reading.problem) == (16, "")
    assert reader.read("ml.x9.large", 2, spot=False).limit is None


def test_spot_training_has_a_quota_of_its_own(server: Any, quotas: Any) -> None:
    reader = ServiceQuotas(quotas, server.client("sagemaker"))
    assert reader.read("ml.p3.8xlarge", 2, spot=True).limit == 16
    names = {quota["QuotaName"] for quota in training_quotas("us-east-1", "123456789012")}
    assert "ml.p3.8xlarge for spot training job usage" in names
