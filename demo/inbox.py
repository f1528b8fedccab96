"""The user's side of ground truth: upload to the inbox, and see what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from demo import diagnosis
from demo.cloud import Cloud, Outputs, wait_for
from demo.corrections import Upload
from demo.display import Display
from demo.errors import StoryError, TookTooLongError

T = TypeVar("T")

SECONDS = 90.0


@dataclass(frozen=True)
class Inbox:
    """The ground-truth inbox of a stack."""

    cloud: Cloud
    outputs: Outputs
    display: Display

    def upload(self, uploads: Sequence[Upload]) -> None:
        """Put the files into the inbox."""
        prefix = self.outputs.inbox.rstrip("/")
        for upload in uploads:
            self.cloud.client("s3").put_object(
                Bucket=self.outputs.bucket, Key=f"{prefix}/demo/{upload.name}", Body=upload.body
            )

    def wait_until_accepted(self, lines: int, labels: int | None = None) -> None:
        """Wait until so many lines stand under accepted/; they must be of exactly ``labels`` requests."""
        self.display.doing("waiting for the ingest function")

        def look() -> list[dict[str, Any]] | None:
            found = list(self.cloud.lines(self.outputs.bucket, "ground-truth/accepted/"))
            return found if len(found) >= lines else None

        found = self._wait(f"the acceptance of {lines} ground-truth records", look)
        different = {item["eventMetadata"]["eventId"] for item in found}
        if len(different) != (labels or lines):
            raise StoryError(
                f"accepted were labels for {len(different)} requests instead of {labels or lines}: see "
                "ground-truth/quarantine/ for what was rejected"
            )
        self.display.doing("")

    def wait_until_quarantined(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many records are in quarantine, and return them."""

        def look() -> list[dict[str, Any]] | None:
            found = list(self.cloud.lines(self.outputs.bucket, "ground-truth/quarantine/"))
            return found if len(found) >= count else None

        return self._wait(f"the quarantine of {count} bad records", look)

    def _wait(self, what: str, look: Callable[[], T | None]) -> T:
        try:
            return wait_for(what, look, SECONDS)
        except TookTooLongError as late:
            group = f"/aws/lambda/{self.outputs.stack}-ingest-ground-truth"
            evidence = diagnosis.quietly(diagnosis.log_tail, self.cloud, group, "")
            raise TookTooLongError(str(late), evidence) from late
