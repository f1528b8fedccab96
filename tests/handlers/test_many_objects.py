"""Reading ten thousand small objects: several at once, in order, and no more in memory than a window."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from truthloop.aws.calls import CONNECTIONS
from truthloop.errors import ObjectMissing
from truthloop.versions.dataset import ObjectInfo
from truthloop.wiring import wiring


def write(world: Any, count: int) -> list[ObjectInfo]:
    with ThreadPoolExecutor(8) as pool:
        contents = {f"many/{n:03d}": f"{n}\nlast of {n}" + "\n" * (n % 2) for n in range(count)}
        list(pool.map(world.put, contents, contents.values()))
    return list(wiring().objects.list("many/"))


def read(items: list[ObjectInfo]) -> list[tuple[str, list[bytes]]]:
    return [(key, list(lines)) for key, lines in wiring().objects.lines_of_each(items)]


def test_small_objects_are_read_several_at_once_and_handed_on_in_order(world: Any) -> None:
    items = write(world, 80)  # more than are asked for ahead
    lock, at_once, seen = threading.Lock(), [0], []

    def enter(**_: Any) -> None:
        with lock:
            at_once[0] += 1
            seen.append(at_once[0])
        time.sleep(0.01)

    def leave(**_: Any) -> None:
        with lock:
            at_once[0] -= 1

    world.hook("before-call.s3.GetObject", enter)
    world.hook("after-call.s3.GetObject", leave)
    # When
    found = read(items)
    # Then
    assert found == [(f"many/{n:03d}", [b"%d" % n, b"last of %d" % n]) for n in range(80)]
    assert 4 <= max(seen) <= CONNECTIONS


def test_a_large_object_is_streamed_when_its_turn_comes(world: Any) -> None:
    line = b"x" * 300_000
    world.put("many/0", b"small")
    world.put("many/1", b"\n".join([line] * 5))
    world.put("many/2", b"")
    (small, whole), (large, lines), (empty, nothing) = (
        (key, list(lines)) for key, lines in wiring().objects.lines_of_each(wiring().objects.list("many/"))
    )
    assert (small, whole) == ("many/0", [b"small"])
    assert (large, lines) == ("many/1", [line] * 5)
    assert (empty, nothing) == ("many/2", [])


def test_an_object_that_vanishes_stops_the_reading(world: Any) -> None:
    items = write(world, 80)
    seen = world.watch("s3.GetObject")
    missing = ObjectInfo("many/never", "e", 1)
    with pytest.raises(ObjectMissing, match="many/never"):
        read([missing, *items])
    assert len(seen) < len(items)  # what was not asked for yet is not asked for any more


def test_who_stops_reading_leaves_no_thread_behind(world: Any) -> None:
    reading = wiring().objects.lines_of_each(write(world, 5))
    next(iter(reading))
    reading.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
