"""The model package group in SageMaker's registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import ModelPackageInvalid
from truthloop.retraining.decision import shorten
from truthloop.serving.registry import PENDING, REJECTED, ModelPackage

_MAXIMUM_DESCRIPTION = 1024


class SageMakerRegistry:
    """Implements ``ports.Registry``."""

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group

    def newest(self, approval: str) -> ModelPackage | None:
        """Return the highest version with that approval status."""
        best = max(self._summaries(approval), default=None)
        return self.describe(best[1]) if best else None

    def newest_pending(self, limit: int) -> tuple[ModelPackage, ...]:
        """Return up to `limit` packages that await approval, highest version first."""
        newest = sorted(self._summaries(PENDING), reverse=True)[:limit]
        return tuple(self.describe(arn) for _, arn in newest)

    def describe(self, arn: str) -> ModelPackage:
        """Describe one package."""
        with translated():
            answer = self._client.describe_model_package(ModelPackageName=arn)
        containers = (answer.get("InferenceSpecification") or {}).get("Containers") or []
        url = containers[0].get("ModelDataUrl") if containers else None
        if not url:
            raise ModelPackageInvalid(f"{arn} names no ModelDataUrl in its InferenceSpecification")
        return ModelPackage(
            arn=str(answer["ModelPackageArn"]),
            version=int(answer.get("ModelPackageVersion") or 0),
            approval=str(answer.get("ModelApprovalStatus") or ""),
            created_at=answer["CreationTime"],
            model_data_url=str(url),
            approval_description=str(answer.get("ApprovalDescription") or ""),
            metadata=dict(answer.get("CustomerMetadataProperties") or {}),
        )

    def annotate(self, package: ModelPackage, metadata: Mapping[str, str]) -> None:
        """Add customer metadata; what the package has is sent along, since the API may replace the whole."""
        with translated():
            self._client.update_model_package(
                ModelPackageArn=package.arn, CustomerMetadataProperties={**package.metadata, **metadata}
            )

    def reject(self, package: ModelPackage, reason: str) -> None:
        """Mark a package Rejected."""
        with translated():
            self._client.update_model_package(
                ModelPackageArn=package.arn,
                ModelApprovalStatus=REJECTED,
                # One line: the API's pattern admits no other.
                ApprovalDescription=shorten(" ".join(reason.split()), _MAXIMUM_DESCRIPTION),
            )

    def _summaries(self, approval: str) -> Iterator[tuple[int, str]]:
        with translated():
            pages = self._client.get_paginator("list_model_packages").paginate(
                ModelPackageGroupName=self._group,
                ModelApprovalStatus=approval,
                SortBy="CreationTime",
                SortOrder="Descending",
            )
            for page in pages:
                for summary in page["ModelPackageSummaryList"]:
                    yield int(summary["ModelPackageVersion"]), str(summary["ModelPackageArn"])
