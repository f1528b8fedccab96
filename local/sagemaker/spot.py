"""Spot instances that are taken away, or never come, since on this machine neither would happen.

``TRUTHLOOP_SPOT_INTERRUPTIONS`` says how often one is taken away, for all spot jobs together; never by
default. ``TRUTHLOOP_SPOT_SCARCE`` names the instance types that no spot job gets, with commas between them.
"""

from __future__ import annotations

import os
import threading

VARIABLE = "TRUTHLOOP_SPOT_INTERRUPTIONS"
SCARCE_VARIABLE = "TRUTHLOOP_SPOT_SCARCE"


class SpotMarket:
    """The interruptions that are left, and the types that there are none of."""

    def __init__(self) -> None:
        self._left = int(os.environ.get(VARIABLE, "0"))
        self._scarce = frozenset(filter(None, os.environ.get(SCARCE_VARIABLE, "").split(",")))
        self._lock = threading.Lock()

    def has(self, instance_type: str) -> bool:
        """Return whether there are instances of a type."""
        return instance_type not in self._scarce

    def take_away(self) -> bool:
        """Return whether the job that asks loses an instance: one job for each interruption."""
        with self._lock:
            self._left -= 1
            return self._left >= 0
