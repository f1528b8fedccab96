"""``truthloop reingest``: send uploads that the door has never read to its queue again.

An event may be lost on its way: EventBridge could not deliver it, its rule was disabled, or its message was
given up. The upload itself is still in the inbox, and what becomes of one version of it has a key of its own,
so whatever has neither an accepted nor a quarantine object was never read to its end. To send one twice does
no harm: the door writes each of these objects once.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from rich.console import Console

from cli.bucket import Bucket, Content, Listed
from cli.errors import ChangedError
from cli.output import counted, print_json
from cli.stack import Stack
from truthloop.errors import UploadRejected
from truthloop.names import digest
from truthloop.settings import ACCEPTED_PREFIX, INBOX_PREFIX, QUARANTINE_PREFIX
from truthloop.times import from_iso, to_iso
from truthloop.uploads.door import Judge, SourceObject
from truthloop.uploads.lines import format_of, read_lines

ON_ITS_WAY = timedelta(minutes=15)
"""How old an upload is before it counts as missed: an event takes a minute, a batch window at most five."""
_AT_ONCE = 10  # SQS's limit for SendMessageBatch
_SHOWN = 20


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    commands.add_parser(
        "reingest", parents=[common], help="send uploads whose event was lost to the door again"
    )


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    bucket = stack.bucket
    found = missed(bucket, bucket.now())
    if found:
        _send(found, bucket.name, stack)
    if given.json:
        print_json([{"key": item.key, "versionId": item.version_id} for item in found])
        return 0
    for sentence in _sentences(found):
        console.print(sentence, markup=False, soft_wrap=True)
    return 0


def missed(bucket: Bucket, now: datetime) -> list[Listed]:
    """Return the versions in the inbox that were never read to their end, oldest first.

    Uploads without a record (blank lines, a CSV header) leave nothing and are not missed.

    Parameters
    ----------
    bucket : Bucket
        The data bucket.
    now : datetime
        The bucket's time; what is younger than `ON_ITS_WAY` may be on its way.
    """
    # The inbox first: what is ingested while this looks must not seem missed.
    uploads = [item for item in bucket.versions(INBOX_PREFIX) if not item.deleted]
    known = {
        item.key.rsplit("/", 1)[-1].split(".", 1)[0]
        for prefix in (ACCEPTED_PREFIX, QUARANTINE_PREFIX)
        for item in bucket.list(prefix)
    }
    without = (
        item
        for item in uploads
        if from_iso(item.uploaded_at) < now - ON_ITS_WAY
        and digest(bucket.name, item.key, str(item.version_id)) not in known
    )
    found = [content.listed for content in bucket.read_all(without) if _has_records(content, bucket.name)]
    return sorted(found, key=lambda item: (from_iso(item.uploaded_at), item.key, str(item.version_id)))


def _has_records(content: Content, bucket: str) -> bool:
    """Whether the door would write anything about an upload."""
    item = content.listed
    source = SourceObject(bucket, item.key, str(item.version_id), "", from_iso(item.uploaded_at))
    try:
        kind = format_of(item.key)
        judge = Judge(source, kind.records, None)
        lines = read_lines([content.body], kind, len(content.body))
        return any(judge(line) is not None for line in lines)
    except UploadRejected:
        return True


def _event(item: Listed, bucket: str) -> dict[str, Any]:
    """Return S3's event about an upload, as far as it is known: a listing does not tell the sequencer."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "time": to_iso(from_iso(item.uploaded_at)),
        "detail": {
            "version": "0",
            "bucket": {"name": bucket},
            "object": {"key": item.key, "size": item.size, "version-id": item.version_id},
            "reason": "truthloop reingest",
        },
    }


def _send(items: Iterable[Listed], bucket: str, stack: Stack) -> None:
    queue, url = stack.client("sqs"), stack.physical_id("IngestQueue")
    waiting = iter(items)
    while part := list(islice(waiting, _AT_ONCE)):
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(_event(item, bucket))}
            for number, item in enumerate(part)
        ]
        for refused in queue.send_message_batch(QueueUrl=url, Entries=entries).get("Failed", []):
            raise ChangedError(
                f"SQS did not take the event about {part[int(refused['Id'])].key} ({refused.get('Code')}: "
                f"{refused.get('Message')}): run the command again; to send one twice does no harm"
            )


def _sentences(found: list[Listed]) -> Iterator[str]:
    if not found:
        yield "Every upload was read: nothing is to be sent again."
        return
    yield f"{counted(len(found), 'upload')} went to the door again, which reads them within minutes:"
    yield from (f"  {item.key} of {to_iso(from_iso(item.uploaded_at))[:19]}Z" for item in found[:_SHOWN])
    if len(found) > _SHOWN:
        yield f"  and {len(found) - _SHOWN} more (--json lists all)"
    yield "Look whether they were read: truthloop doctor"
