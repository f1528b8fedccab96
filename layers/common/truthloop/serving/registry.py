"""Model packages, as the loop sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

APPROVED = "Approved"
REJECTED = "Rejected"
PENDING = "PendingManualApproval"


@dataclass(frozen=True)
class ModelPackage:
    """One version of the model package group."""

    arn: str
    version: int
    approval: str
    created_at: datetime
    model_data_url: str
    approval_description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def generation(self) -> str:
        """The generation that trained it; empty for a package that the loop did not register."""
        return self.metadata.get("generation", "")

    @property
    def candidate(self) -> str:
        """``old`` or ``new``; empty for a package that the loop did not register."""
        return self.metadata.get("candidate", "")

    @property
    def recommended(self) -> bool:
        """Whether the run that trained it recommends it."""
        return self.metadata.get("recommended") == "true"
