"""The same picture compressed anew: recognised, so that no copy of a holdout image gets into training.

A lossless copy has the same pixels and the same digest. A picture that was saved as JPEG, re-saved or scaled
a little has others. It is found in two steps.

*Candidates.* A picture is described by the 16 lowest frequencies of its brightness (`describe`), where JPEG
keeps most; that is the feature of the perceptual hash of Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions" (2010), not cut down to signs: these flip at random where a picture is flat,
as those of a difference hash do. Pictures that agree in all quantised features of one of `BANDS` bands are
compared: locality-sensitive hashing by quantised projections with random offsets, as in Datar, Immorlica,
Indyk, Mirrokni, "Locality-sensitive hashing scheme based on p-stable distributions" (2004). The maintained
library for such hashes, imagehash, has neither the search nor the second step, and needs SciPy.

*Proof.* Two pictures are one (`same_picture`) when they hardly differ at the resolution of JPEG's own
blocks, or when one is a JPEG and the other, compressed with that file's quantisation tables, becomes the
same pixels. A bound on the noise alone cannot tell: a handwritten digit of 8 × 8 pixels differs more from
itself at quality 60 than from some other digit.

The features take 66 bytes per picture and the search is near-linear: what falls into one bucket with more
than `CROWD` others, such as blank pages, is compared with the first pictures of the bucket that are unlike
each other, with no more than `LEADERS` of them, and no picture with more than `COMPARISONS` others in all.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from common.imaging import to_input

SIDE = 4
"""Features are the SIDE × SIDE lowest frequencies of an 8 × 8 thumbnail."""
FEATURES = SIDE * SIDE
BANDS = ((48, FEATURES),) * 6 + ((128, 12),) * 6
"""Width of a quantisation step and number of features, per band. JPEG's own steps for these frequencies are
6 to 13 at quality 60. A picture of 8 × 8 pixels bears all of that noise, which the wide steps allow for;
where there are so many pictures that wide steps crowd their buckets, pictures are larger, and their
thumbnails bear little."""
FEATURE_NOISE = ((24, 48), (64, 24))
LEAST_FEATURE_NOISE = 12
"""The most by which a feature of a copy differs, for pictures whose shorter edge is below 24, below 64 and
any number of pixels: measured at quality 60."""
POINTS = 16
POINT_NOISE = 10
"""A large picture is also described by some cells of a 32 × 32 grid, of 8 × 8 pixels or more each: pages and
textures whose low frequencies are alike differ there, and need not be read again to be told apart."""
LARGE = 256
CROWD = 32
LEADERS = 16
COMPARISONS = 32
AT_ONCE = 1 << 16
MOST_REMEMBERED = 1 << 20
CELL_NOISE = ((64, 1.0, 6, 1.5, 12), (16, 1.5, 10, 2.6, 18), (4, 2.2, 14, 4.5, 28), (0, 2.2, 14, 5.5, 45))
"""How much two pictures of one size may differ, by the number of pixels per cell: from how many on, mean and
largest difference in brightness, mean and largest difference in colour; of 255. JPEG's noise averages out."""
SCALED_NOISE = (2.0, 24, 2.2, 16)
"""The same of two pictures of different sizes, whose edges are sharpened or smoothed by scaling."""
RECOMPRESSED_NOISE, RECOMPRESSED_MEAN_NOISE = 12, 0.75
"""The same, pixel by pixel, of a JPEG and what was compressed as it was: decoders differ in rounding."""
ORIGIN_LIMIT, ORIGIN_DISTANCE = 0.6, 100.0
"""Mean square of the difference of two JPEGs' frequencies, in units of what quantisation explains: at most
this, and less where the steps are so wide that pictures this far apart (grey levels, squared) would pass."""
UNLIKE = 24.0
"""A mean difference beyond which no compression that one would train on explains it."""
ASPECT_NOISE = 0.15

Features = NDArray[np.int16]
Pairs = NDArray[np.int64]
"""Shape (n, 2): numbers of pictures, the lower one first."""
Confirm = Callable[[Pairs], NDArray[np.bool_]]

_frequency, _place = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
_COSINES = np.cos(np.pi * _frequency * (2 * _place + 1) / 16) * np.where(_frequency, 0.5, np.sqrt(0.125))
_chosen = np.random.Generator(np.random.PCG64(20261122))
_PARTS = [np.sort(_chosen.permutation(FEATURES)[:features]) for _, features in BANDS]
_OFFSETS = [_chosen.integers(0, width, features) for width, features in BANDS]
_POINTS = _chosen.integers(0, 32, (2, POINTS))
_MIX = [
    _chosen.integers(1, 2**63, features, np.int64).astype(np.uint64) | np.uint64(1) for _, features in BANDS
]


def describe(image: Image.Image) -> Features:
    """Return int16, shape ``(FEATURES + 1 + POINTS,)``.

    The thumbnail's lowest frequencies, the noise to expect of them, and the points of a large picture.
    """
    grey = _plane(image, "L")
    thumbnail = np.asarray(grey.resize((8, 8), Image.Resampling.BOX), np.float64)
    spectrum = _COSINES @ thumbnail @ _COSINES.T
    edge = min(image.size)
    noise = next((noise for below, noise in FEATURE_NOISE if edge < below), LEAST_FEATURE_NOISE)
    points = np.zeros(POINTS, np.int16)
    if edge >= LARGE:
        points[:] = np.asarray(grey.resize((32, 32), Image.Resampling.BOX))[_POINTS[0], _POINTS[1]]
    return np.concatenate([np.rint(spectrum[:SIDE, :SIDE]).ravel(), [noise], points]).astype(np.int16)


def _plane(image: Image.Image, mode: str) -> Image.Image:
    """Return the picture as a model sees it, in its own size: transparent pixels black, 8 bits."""
    if image.mode == mode:
        return image
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image.convert(mode)
    channels = 1 if mode == "L" else 3
    return Image.fromarray(_seen(image, channels))


def _seen(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    if image.width == image.height:
        pixels = to_input(image, image.width, channels)
        return pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    edge = max(image.size)
    padded = image.crop((0, 0, edge, edge))  # to_input makes squares; what is beyond the picture is black
    padded.info |= image.info
    pixels = to_input(padded, edge, channels)[:, : image.height, : image.width]
    return pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    """Say whether one picture is the other, compressed or slightly scaled."""
    if abs(np.log(one.width * other.height / (other.width * one.height))) > ASPECT_NOISE:
        return False
    mean, brightness_alike, colour_alike = _compare(one, other)
    if brightness_alike and colour_alike:
        return True
    if mean > UNLIKE or one.size != other.size:
        return False
    return _explains(one, other) or _explains(other, one) or (colour_alike and _have_one_origin(one, other))


def _compare(one: Image.Image, other: Image.Image) -> tuple[float, bool, bool]:
    """Compare cell by cell: how far apart in brightness, and whether that and the colour is noise."""
    width, height = min(one.width, other.width), min(one.height, other.height)
    cells = min(width, max(32, width // 8)), min(height, max(32, height // 8))
    grey = one.mode == other.mode == "L"
    planes = []
    for image in (one, other):
        seen = _plane(image, "L") if grey else _plane(image, "RGB").convert("YCbCr")
        scaled = np.asarray(seen.resize(cells, Image.Resampling.BOX), np.int16)
        planes.append(scaled.reshape(*scaled.shape[:2], -1))
    apart = np.abs(planes[0] - planes[1])
    brightness, colour = apart[:, :, 0], apart[:, :, 1:]
    if one.size != other.size:
        noise = SCALED_NOISE
    else:
        pixels = width * height // (cells[0] * cells[1])
        noise = next(bounds[1:] for bounds in CELL_NOISE if pixels >= bounds[0])
    mean = float(brightness.mean())
    brightness_alike = bool(mean <= noise[0] and brightness.max() <= noise[1])
    colour_alike = grey or bool(colour.mean(axis=(0, 1)).max() <= noise[2] and colour.max() <= noise[3])
    return mean, brightness_alike, colour_alike


def _have_one_origin(one: Image.Image, other: Image.Image) -> bool:
    """Say whether two small JPEGs may have been made from one picture that is not there.

    Each has moved the origin's frequencies by up to half a step, so they differ by less than both halves;
    what is cut off at black and white adds to that, so the mean is compared. Large ones are alike by cells.
    """
    if any(not isinstance(image, JpegImagePlugin.JpegImageFile) for image in (one, other)):
        return False
    if one.width * one.height > LARGE**2:
        return False
    apart = _frequencies(one) - _frequencies(other)
    tables = [np.array(image.quantization[0], np.float64) for image in (one, other)]  # type: ignore[attr-defined]
    bound = (tables[0] + tables[1]).reshape(8, 8) / 2 + 2
    limit = min(ORIGIN_LIMIT, ORIGIN_DISTANCE * float((1 / bound**2).mean()))
    return float(((apart / bound) ** 2).mean()) <= limit


def _frequencies(image: Image.Image) -> NDArray[np.float64]:
    """Return the orthonormal DCT of the brightness, block by block: ``(…, 8, 8)``."""
    grey = np.asarray(_plane(image, "L"), np.float64)
    grey = np.pad(grey, [(0, -edge % 8) for edge in grey.shape], mode="edge")
    blocks = grey.reshape(grey.shape[0] // 8, 8, grey.shape[1] // 8, 8).swapaxes(1, 2)
    return np.asarray(_COSINES @ blocks @ _COSINES.T)


def _explains(jpeg: Image.Image, original: Image.Image) -> bool:
    """Say whether `original`, compressed as `jpeg` was, has its pixels."""
    if not isinstance(jpeg, JpegImagePlugin.JpegImageFile) or jpeg.mode not in ("L", "RGB"):
        return False
    buffer = io.BytesIO()
    sampling = JpegImagePlugin.get_sampling(jpeg)
    _plane(original, jpeg.mode).save(
        buffer, "JPEG", qtables=jpeg.quantization, **({"subsampling": sampling} if sampling >= 0 else {})
    )
    copy = Image.open(buffer)
    apart = np.abs(np.asarray(copy, np.int16) - np.asarray(jpeg, np.int16))
    return float(apart.mean()) <= RECOMPRESSED_MEAN_NOISE and int(apart.max()) <= RECOMPRESSED_NOISE


def links(features: Features, confirm: Confirm) -> Pairs:
    """Return every pair of pictures that were found to be one.

    Parameters
    ----------
    features
        Shape ``(n, FEATURES + 1 + POINTS)``, in the order in which pictures came first: in a crowded bucket
        the earlier ones are what the others are compared with.
    confirm
        Says for each of these pairs whether it is one picture.

    Returns
    -------
    numpy.ndarray
        int64, shape ``(m, 2)``, each pair once, the lower number first, sorted.
    """
    near: set[int] = set()
    refused: set[int] = set()
    count = len(features)
    compared = np.zeros(count, np.int32)

    def ask(pairs: Pairs) -> NDArray[np.bool_]:
        codes = (pairs[:, 0] * count + pairs[:, 1]).tolist()
        affordable = (compared[pairs[:, 1]] < COMPARISONS).tolist()
        new = [
            number
            for number, code in enumerate(codes)
            if affordable[number] and code not in near and code not in refused
        ]
        np.add.at(compared, pairs[new, 1], 1)
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            for number, is_one in zip(part, confirm(pairs[part]).tolist(), strict=True):
                (near if is_one else refused).add(codes[number])
        return np.fromiter((code in near for code in codes), np.bool_, len(codes))

    for band in range(len(BANDS)):
        if len(refused) > MOST_REMEMBERED:
            refused.clear()
        order, groups = _buckets(features, band)
        crowded = np.bincount(groups)[groups] > CROWD if len(groups) else np.empty(0, np.bool_)
        for pairs in _neighbours(features, order[~crowded], groups[~crowded]):
            ask(pairs)
        _crowds(features, order[crowded], groups[crowded], ask)
    found = np.array(sorted(near), np.int64)
    return np.stack([found // count, found % count], axis=1) if count else np.empty((0, 2), np.int64)


def _buckets(features: Features, band: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pictures that share a bucket with others, bucket by bucket, and their buckets' numbers."""
    steps = (features[:, _PARTS[band]].astype(np.int64) + _OFFSETS[band]) // BANDS[band][0]
    keys = (steps.astype(np.uint64) * _MIX[band]).sum(axis=1, dtype=np.uint64)
    keys ^= keys >> np.uint64(31)
    order = np.argsort(keys, kind="stable")
    groups = np.cumsum(np.concatenate([[0], keys[order][1:] != keys[order][:-1]])[: len(order)])
    shared = np.bincount(groups)[groups] > 1 if len(groups) else np.empty(0, np.bool_)
    return order[shared].astype(np.int64), groups[shared].astype(np.int64)


def _alike(features: Features, pairs: Pairs) -> NDArray[np.bool_]:
    """Compare the features themselves, a bounded number of pairs at a time."""
    found = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), AT_ONCE):
        part = pairs[start : start + AT_ONCE]
        first, second = features[part[:, 0]].astype(np.int32), features[part[:, 1]].astype(np.int32)
        noise = np.maximum(first[:, FEATURES], second[:, FEATURES])
        apart = np.abs(first - second)
        both_large = (noise == LEAST_FEATURE_NOISE) & first[:, FEATURES + 1 :].any(axis=1)
        both_large &= second[:, FEATURES + 1 :].any(axis=1)
        found[start : start + len(part)] = (apart[:, :FEATURES].max(axis=1) <= noise) & (
            ~both_large | (apart[:, FEATURES + 1 :].max(axis=1) <= POINT_NOISE)
        )
    return found


def _neighbours(features: Features, order: NDArray[np.int64], groups: NDArray[np.int64]) -> Iterator[Pairs]:
    """Yield the pairs of each small bucket that are alike."""
    for distance in range(1, CROWD):
        together = groups[distance:] == groups[:-distance]
        if not together.any():
            return
        pairs = np.stack([order[:-distance][together], order[distance:][together]], axis=1)
        yield pairs[_alike(features, pairs)]


def _crowds(
    features: Features,
    order: NDArray[np.int64],
    groups: NDArray[np.int64],
    ask: Callable[[Pairs], NDArray[np.bool_]],
) -> None:
    """Compare the pictures of large buckets with the bucket's first one, and what is unlike it again."""
    for _ in range(LEADERS):
        if not len(order):
            return
        first = np.concatenate([[True], groups[1:] != groups[:-1]])
        leaders = order[first][np.cumsum(first) - 1]
        pairs = np.stack([leaders, order], axis=1)[~first]
        taken = _alike(features, pairs)
        taken[taken] = ask(pairs[taken])
        order, groups = order[~first][~taken], groups[~first][~taken]


def first_of(count: int, pairs: Pairs) -> NDArray[np.int64]:
    """Say as which earlier picture each one counts.

    What comes later changes nothing about what came before: a picture belongs to the first of the earlier
    ones that it is a copy of.

    Parameters
    ----------
    count
        Number of pictures, in the order in which they came first.
    pairs
        As `links` returns them.

    Returns
    -------
    numpy.ndarray
        int64 ``(count,)``: the number of the first picture, its own where it is no copy.
    """
    firsts = np.arange(count, dtype=np.int64)
    for lower, higher in _in_order(pairs):
        if firsts[higher] == higher:
            firsts[higher] = firsts[lower]
    return firsts


def between(pairs: Pairs, firsts: NDArray[np.int64], sides: Sequence[int]) -> NDArray[np.bool_]:
    """Say which pictures are copies of earlier ones on different sides, or of such a copy: bool ``(count,)``.

    Parameters
    ----------
    pairs
        As `links` returns them.
    firsts
        As `first_of` returns them.
    sides
        Of each picture, the side of those that count as it.
    """
    found = np.zeros(len(firsts), np.bool_)
    for lower, higher in _in_order(pairs):
        found[higher] |= found[lower] or sides[firsts[lower]] != sides[firsts[higher]]
    return found


def _in_order(pairs: Pairs) -> list[list[int]]:
    """Return the pairs so that all of a picture's stand before those of what is a copy of it."""
    return sorted(pairs.tolist(), key=lambda pair: (pair[1], pair[0]))
