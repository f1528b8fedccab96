"""Spot instances that are taken away, since on this machine nobody else would.

``TRUTHLOOP_SPOT_INTERRUPTIONS`` says how often, for all spot jobs together; never by default.
"""

from __future__ import annotations

import os
import threading

VARIABLE = "TRUTHLOOP_SPOT_INTERRUPTIONS"


class SpotMarket:
    """The interruptions that are left."""

    def __init__(self) -> None:
        self._left = int(os.environ.get(VARIABLE, "0"))
        self._lock = threading.Lock()

    def take_away(self) -> bool:
        """Return whether the job that asks loses an instance: one job for each interruption."""
        with self._lock:
            self._left -= 1
            return self._left >= 0
