"""The state machine that an execution runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Machine:
    """What an execution remembers of its state machine, whatever UpdateStateMachine does later."""

    arn: str
    name: str
    definition: Mapping[str, Any]
    role_arn: str
    kind: str
    account_id: str
    region: str
    logging: Mapping[str, Any] = field(default_factory=dict)
