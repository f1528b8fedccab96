"""What users upload to the inbox: corrections in several files, and the rubbish that comes along."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from demo.traffic import Reply


@dataclass(frozen=True)
class Upload:
    """One object for the inbox.

    Attributes
    ----------
    name
        Below the inbox prefix.
    body
        Its bytes.
    good, bad
        How many lines are valid records, and how many must end in quarantine.
    """

    name: str
    body: bytes
    good: int
    bad: int


def record(
    reply: Reply, label: str, author: str, source: str = "correction", time: str | None = None
) -> bytes:
    """Return one ground-truth line in Model Monitor's format."""
    when = time if time is not None else datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps(
        {
            "groundTruthData": {"data": label, "encoding": "CSV"},
            "eventMetadata": {
                "eventId": reply.inference_id,
                "eventTime": when.replace("+00:00", "Z"),
                "author": author,
                "source": source,
            },
            "eventVersion": "0",
        }
    ).encode()


def bad_lines(reply: Reply) -> list[tuple[str, bytes]]:
    """Return the bad records, each with the reason code that it must get."""
    return [
        ("UNKNOWN_LABEL", record(reply, "seven", "eve")),
        ("BAD_TIME", record(reply, reply.digit.label, "eve", time="yesterday")),
        ("NOT_JSON", b'{"groundTruthData": {"data": "7", "encoding": "CSV"'),
        ("BAD_SCHEMA", b'{"id": "drift-digit-0001", "label": 7}'),
        ("NOT_UTF8", b'{"groundTruthData": {"data": "\xff\xfe", "encoding": "CSV"}}'),
    ]


def audit(replies: Sequence[Reply], name: str) -> Upload:
    """Return an auditor's file: every answer labelled, whether right or wrong."""
    lines = [record(reply, reply.digit.label, "auditor", "audit") for reply in replies]
    return Upload(name, b"\n".join(lines) + b"\n", len(lines), 0)


def corrections(replies: Sequence[Reply], files: int) -> list[Upload]:
    """Return the users' files for the mistakes among the replies, bad records in one of them."""
    wrong = [reply for reply in replies if not reply.right and not reply.error]
    authors = ("ann", "bo", "cem", "dee")
    uploads = []
    for number in range(files):
        mine = wrong[number::files]
        lines = [record(reply, reply.digit.label, authors[number % len(authors)]) for reply in mine]
        bad = bad_lines(wrong[0]) if number == files - 1 and wrong else []
        # The rubbish stands between good records: one bad line must not cost its neighbours.
        middle = len(lines) // 2
        lines[middle:middle] = [line for _, line in bad]
        uploads.append(
            Upload(f"corrections-{number + 1}.jsonl", b"\n".join(lines) + b"\n", len(mine), len(bad))
        )
    return uploads
