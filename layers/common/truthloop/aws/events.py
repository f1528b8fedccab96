"""The default event bus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import TransientAwsError


class EventBridgeEvents:
    """Implements ``ports.Events``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def publish(self, source: str, detail_type: str, detail: Mapping[str, Any]) -> None:
        """Put one event; PutEvents answers 200 also when it took none, so the count is read."""
        with translated():
            answer = self._client.put_events(
                Entries=[{"Source": source, "DetailType": detail_type, "Detail": json.dumps(detail)}]
            )
        if answer.get("FailedEntryCount"):
            entry = answer["Entries"][0]
            raise TransientAwsError(
                f"PutEvents did not take {detail_type!r}: "
                f"{entry.get('ErrorCode')} {entry.get('ErrorMessage')}"
            )
