"""The demo's data: scikit-learn's 1,797 handwritten digits, split once and for all, and their drift.

The images are real (Alpaydin and Kaynak, 1998; bundled with scikit-learn, so the demo is offline).
Labels are never changed. Drift is a transformation of held-back images: the digits as a new scanner
delivers them, dark ink on grey paper, where the old one delivered bright ink on black.
"""

from __future__ import annotations

import hashlib
import io
import signal
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

Part = Literal["base", "traffic", "drift", "exam"]

SHARES: tuple[tuple[Part, float], ...] = (("base", 0.50), ("traffic", 0.08), ("drift", 0.27), ("exam", 0.15))
"""Parts of the data and their share. ``base`` trains; the others are held back for the requests of
everyday traffic, the drifting traffic that users correct, and the exam that nobody ever labels."""

SIZE = 32
"""Width and height of the PNG in pixels: four times the 8 × 8 pixels of the data set."""

PAPER = 200
"""Grey of the paper in the drifted images."""

INK = 0.6
"""Contrast of the ink in the drifted images: the brightest ink is ``PAPER - 255 * INK``."""


@dataclass(frozen=True)
class Digit:
    """One image of the data set.

    Attributes
    ----------
    example_id
        Stable name, ``digit-0042``.
    label
        What it shows, ``"0"`` to ``"9"``.
    image
        Grey-scale image, ``SIZE`` × ``SIZE``, bright ink on black.
    """

    example_id: str
    label: str
    image: Image.Image

    @property
    def png(self) -> bytes:
        """The image as PNG, as a client sends it to the endpoint."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()


@cache
def images() -> tuple[Digit, ...]:
    """Return all digits of the data set, in its order."""
    from sklearn.datasets import load_digits  # 1 s to import: only who needs the data pays

    data = load_digits()
    digits = []
    for number, (pixels, target) in enumerate(zip(data.images, data.target, strict=True)):
        small = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
        digits.append(
            Digit(f"digit-{number:04d}", str(target), small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        )
    return tuple(digits)


def part_of(example_id: str) -> Part:
    """Return the part that an example belongs to.

    Rule: the SHA-256 of the id, as a fraction of its range, is looked up in the cumulated ``SHARES``;
    so an example keeps its part whatever else the data set holds, and the parts are disjoint.
    """
    digest = hashlib.sha256(f"demo/{example_id}".encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    for part, share in SHARES:
        if fraction < share:
            return part
        fraction -= share
    return SHARES[-1][0]


def split(part: Part) -> tuple[Digit, ...]:
    """Return the digits of one part, in the order of the data set."""
    return tuple(digit for digit in images() if part_of(digit.example_id) == part)


def drifted(digit: Digit) -> Digit:
    """Return the digit as the new scanner delivers it: dark on light, with less contrast."""
    return replace(digit, image=digit.image.point([round(PAPER - INK * grey) for grey in range(256)]))


def drift_all(digits: Iterable[Digit]) -> list[Digit]:
    """Return each digit drifted."""
    return [drifted(digit) for digit in digits]


def base_objects() -> dict[str, bytes]:
    """Return the objects of the base set, by key: two Parquet files, and a smoke-test example per label."""
    base = split("base")
    half = len(base) // 2
    objects = {
        "base/digits-0.parquet": base_parquet(base[:half]),
        "base/digits-1.parquet": base_parquet(base[half:]),
    }
    examples = {digit.label: digit for digit in reversed(base)}
    for label, digit in sorted(examples.items()):
        objects[f"smoke-test/{label}/{digit.example_id}.png"] = digit.png
    return objects


def base_parquet(digits: Iterable[Digit]) -> bytes:
    """Return a Parquet file with the columns ``example_id``, ``image`` and ``label`` of the base set."""
    interrupted = signal.getsignal(signal.SIGINT)
    import polars

    # Polars takes the signal for itself; give it back.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupted)
    rows = tuple(digits)
    frame = polars.DataFrame(
        {
            "example_id": [digit.example_id for digit in rows],
            "image": [digit.png for digit in rows],
            "label": [digit.label for digit in rows],
        },
        schema={"example_id": polars.String, "image": polars.Binary, "label": polars.String},
    )
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
