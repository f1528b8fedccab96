"""How much memory and time the fold takes per statement, beside the JSON decoder alone.

Usage: ``.venv/bin/python bench/fold_statements.py [statements]`` (default 200,000). Preflight and snapshot
have 2 GiB; the memory is that of this process (its greatest resident set), less what it was before.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "layers/common"))

from truthloop.versions.captures import Indexed, Lookup
from truthloop.versions.dataset import dataset_version
from truthloop.versions.labels import Origin, Reader, Statement, changed
from truthloop.versions.standing import Gathered, Standing, Terms, settle

PER_UPLOAD = 100
FUNCTION_BYTES = 2048 * 1024**2


def accepted(count: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield accepted objects: a hundred statements each, half of them by one of forty authors."""
    for start in range(0, count, PER_UPLOAD):
        key = f"ground-truth/inbox/2026/11/22/{uuid.UUID(int=start)}.jsonl"
        version, uploaded = uuid.UUID(int=start).hex, f"2026-11-22T10:{start % 60:02d}:00.000000Z"
        yield (
            key,
            [
                Statement(
                    inference_id=str(uuid.UUID(int=number)),
                    label=str(number % 10),
                    event_time=f"2026-11-22T10:00:00.{number % 1_000_000:06d}Z",
                    author=f"person-{number % 40}" if number % 2 else None,
                    source="correction",
                    sequencer=f"{start:040x}.{number - start:010d}",
                    origin=Origin(key, version, number - start + 1, 200 * (number - start), uploaded),
                ).to_accepted_line()
                for number in range(start, min(count, start + PER_UPLOAD))
            ],
        )


def fold(count: int) -> tuple[Standing, float]:
    """Fold the statements as the functions do; return what holds and the seconds that it took."""
    reader, gathered, seconds = Reader(), Gathered({}), 0.0
    for key, lines in accepted(count):
        began = time.process_time()
        gathered.add(reader.accepted(key, lines))
        seconds += time.process_time() - began
    began = time.process_time()
    lookup = Lookup(gathered)
    seconds += time.process_time() - began
    for start in range(0, count, PER_UPLOAD):
        ids = tuple(str(uuid.UUID(int=n)) for n in range(start, min(count, start + PER_UPLOAD)))
        began = time.process_time()
        lookup.note(Indexed(f"capture/endpoint/AllTraffic/2026/11/22/10/{start}.jsonl", ids))
        seconds += time.process_time() - began
    began = time.process_time()
    terms = Terms("", maximum_author_share=0.9)
    standing = settle(gathered, lambda statement: statement.inference_id in lookup, frozenset(), terms)
    assert len(standing.labels) == count
    assert len(lookup.captures_of(standing.labels)) == -(-count // PER_UPLOAD)
    dataset_version([], standing.labels, {})
    changed({}, standing.labels)
    return standing, seconds + time.process_time() - began


def resident() -> int:
    """Return this process's greatest resident set so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(count: int) -> None:
    """Print the figures; times are of the CPU."""
    decoding = 0.0
    for _, lines in accepted(count):
        began = time.process_time()
        for line in lines:
            json.loads(line)
        decoding += time.process_time() - began
    before = resident()
    standing, seconds = fold(count)
    per_statement = (resident() - before) / count
    began, size = time.process_time(), 0
    with SpooledTemporaryFile(max_size=16 * 1024**2) as file:
        for identifier in sorted(standing.kept):
            for statement in standing.kept[identifier]:
                size += file.write(statement.to_statement_line(captured=True, trained=True))
    writing = time.process_time() - began
    print(f"{count:,} statements in uploads of {PER_UPLOAD}")
    print(f"decoding alone      {1e6 * decoding / count:6.1f} µs per statement")
    print(
        f"folding             {1e6 * seconds / count:6.1f} µs per statement, "
        f"{seconds / decoding:.1f} times the decoding"
    )
    print(f"writing             {1e6 * writing / count:6.1f} µs per statement, {size / count:.0f} bytes each")
    print(f"memory of the fold  {per_statement:6.0f} bytes per statement")
    fits = (FUNCTION_BYTES - before) / per_statement
    print(f"2 GiB hold          {fits:,.0f} statements")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
