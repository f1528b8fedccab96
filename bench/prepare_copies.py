"""How many compressed copies Prepare recognises, and how many different digits it takes for one.

Usage: ``.venv/bin/python bench/prepare_copies.py [every]`` (default 1: all 1,797 digits; 3: every third), as
they are and inverted, each as PNG and as JPEG of four qualities, all compared with all.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "containers"))

from dataset.near_duplicates import Pairs, describe, first_of, links, same_picture

QUALITIES = (95, 85, 75, 60)


def saved(image: Image.Image, kind: str, quality: int = 0) -> Image.Image:
    """Return the picture as a file of that kind holds it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def main(every: int) -> None:
    """Print the figures."""
    shown = [Image.fromarray((pixels / 16 * 255).astype("uint8")) for pixels in load_digits().images[::every]]
    originals = [saved(image, "PNG") for image in (*shown, *map(ImageOps.invert, shown))]
    count = len(originals)
    pictures = originals + [saved(image, "JPEG", quality) for quality in QUALITIES for image in originals]

    def confirm(pairs: Pairs) -> NDArray[np.bool_]:
        return np.array([same_picture(pictures[one], pictures[other]) for one, other in pairs.tolist()], bool)

    began = time.process_time()
    pairs = links(np.stack([describe(picture) for picture in pictures]), confirm)
    seconds = time.process_time() - began
    firsts = first_of(len(pictures), pairs)
    print(f"{len(pictures):,} pictures, {seconds:.1f} s CPU, {1e3 * seconds / len(pictures):.2f} ms each")
    wrong = sum(one % count != other % count for one, other in pairs.tolist())
    print(f"different digits taken for one: {wrong}")
    for number, quality in enumerate(QUALITIES, 1):
        direct = sum(one < count and other // count == number for one, other in pairs.tolist())
        through = int((firsts[number * count :][:count] == np.arange(count)).sum())
        print(f"quality {quality}: {direct:,} of {count:,} recognised, {through:,} with help of other copies")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
