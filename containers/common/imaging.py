"""Bytes from outside to pixels: the same decoding, limits and scaling for training and for serving.

An image that is decoded differently in the endpoint than in training is a silent loss of accuracy, so
both go through :func:`to_input`.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common.errors import BadImageError, ImageTooLargeError

MAX_BYTES = 6 * 1024 * 1024
"""SageMaker's own limit of a real-time request's body is 6 MB."""
MAX_PIXELS = 25_000_000
FORMATS = ("PNG", "JPEG")

Pixels = NDArray[np.uint8]


def decode(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a PNG or JPEG, refusing by its header what would be too large to decode.

    Raises
    ------
    ImageTooLargeError
        More than ``max_bytes`` bytes or ``max_pixels`` pixels (a decompression bomb).
    BadImageError
        No image, another format, or damaged.
    """
    if not data:
        raise BadImageError("the image is empty: send the bytes of a PNG or JPEG file")
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"the image has {len(data)} bytes: at most {max_bytes} are accepted")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise ImageTooLargeError(
                    f"the image has {width} x {height} pixels: at most {max_pixels} are accepted"
                )
            image.load()
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"the image is too large to decode: {error}") from error
    except UnidentifiedImageError:
        raise BadImageError("the bytes are neither a PNG nor a JPEG image") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise for damaged data
        raise BadImageError(f"the image is damaged: {error}") from error
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down to 8 bits, which Pillow's own conversion would clip to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def pixel_digest(image: Image.Image) -> str:
    """Return the SHA-256 of what the image shows: equal for a lossless re-encoding of the same picture."""
    rgba = _eight_bit(image).convert("RGBA")
    digest = hashlib.sha256(f"{rgba.width}x{rgba.height}:".encode())
    digest.update(rgba.tobytes())
    return digest.hexdigest()


def to_input(image: Image.Image, size: int, channels: int) -> Pixels:
    """Scale to the model's input.

    Parameters
    ----------
    image
        As :func:`decode` returns it. Transparent pixels count as black.
    size
        Edge length of the square input; the aspect ratio is not kept.
    channels
        1 (grey) or 3 (RGB).

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(channels, size, size)``.
    """
    mode = "L" if channels == 1 else "RGB"
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    scaled = _eight_bit(image).convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    pixels: NDArray[Any] = np.asarray(scaled, dtype=np.uint8)
    return pixels[None, :, :] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
